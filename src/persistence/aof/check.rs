//! `ringshard check aof`.
