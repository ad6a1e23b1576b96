//! The append-only log: written, loaded, rewritten, refused, and exchanged with redis-server.
