//! What clients are owed: replies in order, output limits, and closing.

use super::{LogLevel, Shard};
use crate::client::{Sends, Wait, gate};
use crate::commands::connection::REPLY_CHUNK_BYTES;
use crate::config::ClientClass;
use crate::limits::{SPARE_BUFFER_BYTES, SPARE_BUFFERS_BYTES};
use crate::resp::Reply;

/// Output of a client that awaits other shards' replies is held back up to so many bytes: the rest is µs away, and a
/// pipeline answered in pieces costs a send for each (with eight shards 16-deep, 3.5 µs a request instead of 2).
const HOLD_BYTES: usize = 16 * 1024;

/// Reply buffers that were used before.
#[derive(Debug, Default)]
pub(crate) struct SpareBuffers {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
    /// The fewest there were since the last [`SpareBuffers::trim`]: so many nobody needs.
    fewest: usize,
}

impl SpareBuffers {
    /// One of them, or a new one.
    #[inline]
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        self.fewest = self.fewest.min(self.buffers.len());
        buffer
    }

    /// Gives those back to the allocator that lay unused since the last time.
    pub(crate) fn trim(&mut self) {
        let unused = self.fewest.min(self.buffers.len());
        self.bytes -= self.buffers.drain(..unused).map(|buffer| buffer.capacity()).sum::<usize>();
        self.fewest = self.buffers.len();
    }

    /// Gives all back: there is something better to do with the memory.
    pub(crate) fn clear(&mut self) {
        *self = SpareBuffers::default();
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    #[inline]
    fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = self.bytes + buffer.capacity();
        if buffer.capacity() > 0 && buffer.capacity() <= SPARE_BUFFER_BYTES && bytes <= SPARE_BUFFERS_BYTES {
            buffer.clear();
            self.bytes = bytes;
            self.buffers.push(buffer);
        }
    }
}

impl Shard {
    /// Writes a reply behind those that are awaited, if any.
    pub(crate) fn reply_in_order(&mut self, index: u32, write: impl FnOnce(&mut Reply<'_>)) {
        let Some(client) = self.clients[index as usize].as_deref_mut() else { return };
        match client.order.as_deref_mut().filter(|order| !order.is_empty()) {
            None => {
                if client.out.capacity() == 0 {
                    client.out = self.spare_buffers.take();
                }
                let length = client.out.len();
                write(&mut Reply::new(&mut client.out, client.resp));
                client.mute(length);
            }
            Some(order) => {
                let (out, start) = order.open_ready();
                write(&mut Reply::new(out, client.resp));
                if client.gate & gate::MUTED != 0 {
                    out.truncate(start);
                }
                order.close_ready(start);
            }
        }
        self.queue_flush(index);
    }

    /// Adds bytes to a client's output.
    pub(crate) fn push_output(&mut self, index: u32, bytes: &[u8]) {
        if let Some(client) = self.clients[index as usize].as_deref_mut() {
            client.out.extend_from_slice(bytes);
            self.queue_flush(index);
        }
    }

    /// Puts a client on the list of those with output.
    #[inline]
    pub(crate) fn queue_flush(&mut self, index: u32) {
        if let Some(client) = self.clients[index as usize].as_deref_mut() {
            if client.sends != Sends::Now {
                client.sends = Sends::Now;
                self.flush.push(index);
            }
        }
    }

    /// Closes a client when all it is owed is sent; no more of its input is run.
    pub(crate) fn close_after_reply(&mut self, index: u32) {
        if let Some(client) = self.clients[index as usize].as_deref_mut() {
            client.gate |= gate::CLOSE_AFTER_REPLY;
            self.queue_flush(index);
        }
    }

    /// Takes a client off the list of those with output, and hands its output to the driver: an empty buffer when
    /// there is nothing to send. The driver reports what was sent by [`super::Event::Sent`], and gives the buffer
    /// back by [`Shard::recycle`].
    #[inline]
    pub fn take_output(&mut self, index: u32) -> Vec<u8> {
        let held = !self.core.awaited_frees.is_empty() && self.awaits_free(index);
        let Some(client) = self.clients[index as usize].as_deref_mut() else { return Vec::new() };
        client.sends = Sends::No;
        if held {
            return Vec::new();
        }
        if client.gate & (gate::CLOSE_AFTER_REPLY | gate::ENDED) != 0 {
            return self.take_output_slow(index);
        }
        // What a client waits for that waits for keys may never come.
        let soon = client.awaits_replies() && client.blocked.is_none();
        if self.gate.is_busy() {
            let soon = soon && client.out.len() < HOLD_BYTES;
            let out = self.take_covered_output(index, soon);
            self.client(index).hand_out(&out);
            return out;
        }
        if client.out.is_empty() || (client.out.len() < HOLD_BYTES && soon) {
            return Vec::new();
        }
        let out = std::mem::take(&mut client.out);
        client.hand_out(&out);
        out
    }

    /// Whether a client's `FLUSHALL` has handed away what is not freed yet.
    #[cold]
    fn awaits_free(&self, index: u32) -> bool {
        let client = self.clients[index as usize].as_deref();
        client.is_some_and(|client| self.core.awaited_frees.iter().any(|free| free.holds_up(index, client.id)))
    }

    /// Lets go the output of clients whose `FLUSHALL` is done; looked at each turn, see [`Shard::next_deadline_ms`].
    pub(crate) fn end_frees(&mut self) {
        let over: Vec<_> = self.core.awaited_frees.extract_if(.., |free| free.is_over()).collect();
        over.into_iter().for_each(|free| self.queue_flush(free.index()));
    }

    #[cold]
    fn take_output_slow(&mut self, index: u32) -> Vec<u8> {
        let out = match self.gate.is_busy() {
            true => self.take_covered_output(index, false),
            false => std::mem::take(&mut self.client(index).out),
        };
        let client = self.client(index);
        client.hand_out(&out);
        if client.closes_when_sent() && client.output_bytes() == 0 {
            self.close_now(index);
        }
        out
    }

    /// A buffer whose bytes were sent.
    #[inline]
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.guarded && self.core.memory_is_over() {
            // Keys would be evicted for it.
            return;
        }
        self.spare_buffers.give(buffer);
    }

    /// The driver has sent `bytes` of a client's output.
    #[inline]
    pub(crate) fn sent(&mut self, index: u32, bytes: usize) {
        let now = self.core.now_ms;
        let Some(client) = self.clients[index as usize].as_deref_mut() else { return };
        client.handed_out(bytes);
        client.net_out += bytes as u64;
        client.last_interaction_ms = now;
        self.core.stats.net_output_bytes += bytes as u64;
        self.core.stats.writes_processed += 1;
        if client.link.as_deref().is_some_and(|link| link.bulk.is_some()) {
            // There is room for more of the snapshot, which the end of the next turn gives it.
            return self.queue_flush(index);
        }
        if client.gate & (gate::CLOSE_AFTER_REPLY | gate::ENDED) != 0 {
            if client.closes_when_sent() && client.output_bytes() == 0 {
                return self.close_now(index);
            }
            // It may have been looked at while the driver was still sending, which then took nothing.
            client.sends = Sends::No;
            self.queue_flush(index);
        }
    }

    /// Bytes a client is owed, for the driver's own decisions.
    pub fn output_bytes(&self, index: u32) -> usize {
        self.clients.get(index as usize).and_then(|c| c.as_deref()).map_or(0, |client| client.output_bytes())
    }

    /// Closes clients that are owed more than `client-output-buffer-limit` allows. Called before output is sent, and
    /// from the time event for the soft limit.
    pub fn check_output_limit(&mut self, index: u32) {
        let class = match self.clients[index as usize].as_deref() {
            Some(client) if client.gate & gate::REPLICA != 0 => ClientClass::Replica,
            Some(client) if client.gate & gate::SUBSCRIBED != 0 => ClientClass::Pubsub,
            _ => ClientClass::Normal,
        };
        let mut limit = self.core.config.client_output_buffer_limit[class as usize];
        if class == ClientClass::Replica && limit.hard_bytes != 0 {
            // Else a replica could not be sent all that it may ask for.
            limit.hard_bytes = limit.hard_bytes.max(self.core.config.repl_backlog_size);
        }
        if limit.hard_bytes == 0 && limit.soft_bytes == 0 {
            return;
        }
        let now = self.core.now_ms;
        let Some(client) = self.clients[index as usize].as_deref_mut() else { return };
        // What Redis keeps in the client itself does not count.
        let owed = if client.output_bytes() <= REPLY_CHUNK_BYTES { 0 } else { client.output_bytes() as u64 };
        let hard = limit.hard_bytes != 0 && owed > limit.hard_bytes;
        let mut soft = false;
        if limit.soft_bytes != 0 && owed > limit.soft_bytes {
            if client.over_soft_limit_since == 0 {
                client.over_soft_limit_since = now;
            }
            soft = now - client.over_soft_limit_since > limit.soft_seconds as i64 * 1000;
        } else {
            client.over_soft_limit_since = 0;
        }
        if hard || soft {
            let line = format!(
                "Client id={} addr={} closed for overcoming of output buffer limits.",
                client.id, client.peer.address
            );
            self.core.stats.output_buffer_limit_disconnections += 1;
            self.log(LogLevel::Warning, line);
            self.close_now(index);
        }
    }

    /// A reply that was awaited from another shard has come.
    #[inline]
    pub(crate) fn fulfil(&mut self, index: u32, id: u64, sequence: u64, bytes: &[u8]) {
        self.fulfil_with(index, id, sequence, |out| out.extend_from_slice(bytes));
    }

    /// As [`Shard::fulfil`], for a reply that is put together in place. It is not if the client has gone.
    #[inline]
    pub(crate) fn fulfil_with(&mut self, index: u32, id: u64, sequence: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let client = self.clients.get_mut(index as usize).and_then(|client| client.as_deref_mut());
        let Some(client) = client.filter(|client| client.id == id) else { return };
        if client.out.capacity() == 0 {
            client.out = self.spare_buffers.take();
        }
        let order = client.order.as_deref_mut().expect("an awaited reply has its slot");
        order.fulfil(sequence, &mut client.out, write);
        if !order.is_empty() && client.out.len() < HOLD_BYTES {
            return;
        }
        let waited = order.is_empty() && matches!(client.wait, Wait::Replies | Wait::Blocked);
        if client.sends != Sends::Now {
            client.sends = Sends::Now;
            self.flush.push(index);
        }
        if waited {
            self.end_wait(index);
            self.wake(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SpareBuffers;
    use crate::testing::{Value, World, request};

    /// Buffers that nobody has needed for a while go back to the allocator; those that are in use come round.
    #[test]
    fn spare_buffers_that_lie_unused_are_given_back() {
        let mut spare = SpareBuffers::default();
        (0..10).for_each(|_| spare.give(Vec::with_capacity(1000)));
        spare.trim();
        assert_eq!(spare.buffers.len(), 10, "they have only come");
        for _ in 0..3 {
            let (a, b) = (spare.take(), spare.take());
            assert!(a.capacity() >= 1000 && b.capacity() >= 1000);
            spare.give(a);
            spare.give(b);
            spare.trim();
            assert_eq!((spare.buffers.len(), spare.bytes), (2, 2000));
        }
        spare.trim();
        assert_eq!((spare.buffers.len(), spare.bytes), (0, 0));
        assert_eq!(spare.take().capacity(), 0);
    }

    /// Commands over the connection use the buffers that they give back.
    #[test]
    fn replies_of_home_commands_come_in_spare_buffers() {
        let mut world = World::new(1);
        let conn = world.connect();
        (0..100).for_each(|_| drop(world.run(conn, "INFO")));
        assert!(world.shards[0].spare_buffers.buffers.len() <= 2);
    }

    /// What fits the buffer that Redis has in each client does not count against `client-output-buffer-limit`.
    #[test]
    fn small_replies_pass_any_output_limit() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (conn, other) = (world.connect(), world.connect());
            world.run(conn, &format!("SET small {}", "x".repeat(10_000)));
            world.run(conn, &format!("SET large {}", "x".repeat(100_000)));
            world.run(conn, "CONFIG SET client-output-buffer-limit 'normal 10 0 0'");
            assert_eq!(world.run(conn, "GET small").text().len(), 10_000);
            assert!(world.run(conn, "INFO stats").text().contains("client_output_buffer_limit_disconnections:0\r\n"));
            world.send(other, &request(&["GET", "large"]));
            assert!(Value::parse_all(&world.received(other)).is_empty() && !world.is_open(other));
            assert!(world.run(conn, "INFO stats").text().contains("client_output_buffer_limit_disconnections:1\r\n"));
        }
    }

    /// `printf … | nc -N`: what a client sent before its end is run and answered, wherever its keys are.
    #[test]
    fn an_end_of_input_waits_for_what_came_before() {
        for shards in [1, 2, 4] {
            let mut world = World::new(shards);
            let conn = world.connect();
            let mut sent = Vec::new();
            for n in 0..50 {
                sent.extend(request(&["SET", &format!("k{n}"), "1"]));
                // Over several shards, and waited for: the next commands are run later.
                sent.extend(request(&["SUNIONSTORE", &format!("s{n}"), &format!("a{n}"), &format!("b{n}")]));
                sent.extend(request(&["DBSIZE"]));
            }
            sent.extend(request(&["GET", "k7"]));
            // Of this there will be no more.
            sent.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$2\r\nk");
            world.send_only(conn, &sent);
            world.end_input(conn);
            let replies: Vec<u8> =
                (1..=50).flat_map(|n| format!("+OK\r\n:0\r\n:{n}\r\n").into_bytes()).chain(*b"$1\r\n1\r\n").collect();
            assert_eq!(world.received(conn), replies);
            assert!(!world.is_open(conn));
        }
    }

    #[test]
    fn who_has_ended_waits_for_no_keys() {
        for shards in [1, 2, 4] {
            let mut world = World::new(shards);
            for keys in [&["a"][..], &["b"], &["a", "b", "c", "d"]] {
                // Before it ends, and in what is still to be run when it does.
                for first in ["PING", "DBSIZE"] {
                    let conn = world.connect();
                    let blpop = [&["BLPOP"][..], keys, &["0"]].concat();
                    world.send_only(conn, &[request(&[first]), request(&blpop), request(&["PING"])].concat());
                    world.end_input(conn);
                    assert!(!world.is_open(conn));
                    let other = world.connect();
                    assert_eq!(world.call(other, &["RPUSH", keys[0], "x"]), b":1\r\n");
                    assert_eq!(world.call(other, &["LPOP", keys[0]]), b"$1\r\nx\r\n");
                    world.disconnect(other);
                }
            }
        }
    }
}
