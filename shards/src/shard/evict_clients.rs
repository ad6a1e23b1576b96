//! `maxmemory-clients`: when all clients together hold too much, those that hold most are closed.
//!
//! Each shard counts what its clients hold, as they send and as they are owed, and publishes the sum and what its
//! largest client holds. A shard that finds the sum over all shards too high closes its own largest client if no other
//! shard has a larger one, and else leaves it to that shard. What is published as the largest may be too high, for it is
//! looked up only when it matters; the shard that is asked corrects it, and asks on. Counterpart: `evictClients`.
//!
//! Replies of one shard for a client of another are counted while they are under way, but no client goes for them: they
//! only keep keys from being evicted for what is about to be found too much.

use std::sync::atomic::Ordering::Relaxed;

use super::{LogLevel, Shard};
use crate::client::{Client, gate};
use crate::message::{Note, Parcel};
use crate::router::ShardId;

impl Shard {
    /// Takes over the bound as it is configured now.
    pub(crate) fn refresh_client_memory(&mut self) {
        let config = &self.core.config;
        let limit = config.maxmemory_clients.bytes(config.maxmemory).unwrap_or(0) as usize;
        let before = std::mem::replace(&mut self.client_memory_limit, limit);
        if before == 0 && limit != 0 {
            // Nobody has counted meanwhile.
            (0..self.clients.len() as u32).for_each(|index| self.count_memory(index));
        }
    }

    /// Counts anew what a client holds.
    pub(crate) fn count_memory(&mut self, index: u32) {
        let Some(client) = self.clients[index as usize].as_deref_mut() else { return };
        // Replicas have a bound of their own.
        let bytes = if client.gate & gate::REPLICA != 0 { 0 } else { client.memory() };
        let before = std::mem::replace(&mut client.counted_bytes, bytes);
        let memory = &self.core.shared.client_memory[self.core.id as usize].0;
        memory.total.fetch_add(bytes, Relaxed);
        memory.total.fetch_sub(before, Relaxed);
        if !client.no_evict {
            memory.largest.fetch_max(bytes, Relaxed);
        }
    }

    /// A reply for a client at home on another shard was made. Its buffer is in memory from now on, which must not cost
    /// keys because its client is not known yet to be owed it.
    #[cold]
    pub(crate) fn count_under_way(&mut self, home: ShardId) {
        let parcel = self.outbox.begun_parcel(home);
        let bytes = parcel.replies.bytes.capacity();
        let before = std::mem::replace(&mut parcel.under_way_bytes, bytes);
        self.core.shared.client_memory[self.core.id as usize].0.under_way.fetch_add(bytes - before, Relaxed);
    }

    /// What was in a parcel is its receivers' now, who were counted one by one, and not only at the end of the turn, before
    /// which other shards would take what they hold for nobody's.
    #[cold]
    pub(crate) fn count_arrived(&mut self, parcel: &Parcel) {
        let memory = &self.core.shared.client_memory[parcel.from as usize].0;
        memory.under_way.fetch_sub(parcel.under_way_bytes, Relaxed);
    }

    /// A client goes.
    pub(crate) fn uncount_memory(&mut self, client: &Client) {
        let memory = &self.core.shared.client_memory[self.core.id as usize].0;
        memory.total.fetch_sub(client.counted_bytes, Relaxed);
    }

    /// At the end of a turn, and when another shard asks for clients: counts those whose output has changed, and has clients closed if all hold too much.
    pub(crate) fn count_and_evict_clients(&mut self) {
        self.asked_for_room = false;
        for at in 0..self.flush.len() {
            // Who is owed too much goes for that, and makes room for others.
            self.check_output_limit(self.flush[at]);
            self.count_memory(self.flush[at]);
        }
        self.evict_clients();
    }

    /// Before a command (but a plain one where nothing guards it): who holds too much by what ran before goes first. The
    /// end of the turn would be too late: it may leave each client a large reply, for which keys would go, and who asks in
    /// it which clients there are would be told of those that have sent too much before.
    #[cold]
    pub(crate) fn evict_clients_first(&mut self, index: u32) {
        let before = std::mem::replace(&mut self.served_last, index);
        if self.clients.get(before as usize).is_some_and(Option::is_some) {
            self.count_memory(before);
        }
        self.evict_own_clients();
    }

    /// Whether memory is short because clients hold too much, of which the largest are about to be closed, or will when
    /// what is under way to them has come: no key is evicted until they have gone.
    pub(crate) fn clients_go_first(&mut self) -> bool {
        if self.client_memory_limit == 0 || self.core.shards == 1 || !self.core.memory_is_over() {
            return false;
        }
        let memory = || self.core.shared.client_memory.iter().map(|memory| &memory.0);
        // Before what is held: what comes meanwhile is counted twice, and not missed.
        let under_way: usize = memory().map(|memory| memory.under_way.load(Relaxed)).sum();
        let held: usize = memory().map(|memory| memory.total.load(Relaxed)).sum();
        let largest = memory().map(|memory| memory.largest.load(Relaxed)).enumerate().max_by_key(|(_, bytes)| *bytes);
        match largest {
            Some((at, bytes)) if held > self.client_memory_limit && bytes > 0 => {
                if at != self.core.id as usize && !std::mem::replace(&mut self.asked_for_room, true) {
                    self.outbox.note(at as ShardId, Note::EvictClients);
                }
                true
            }
            // So long as that is what memory lacks: on a server that always has much under way, keys would grow on. It may
            // be there twice, while a buffer grows and while it is copied to its clients.
            _ => {
                let excess = self.core.shared.counted_memory().saturating_sub(self.core.config.maxmemory as usize);
                held + under_way > self.client_memory_limit && excess > 0 && 2 * under_way >= excess
            }
        }
    }

    /// Closes this shard's largest clients while all hold too much and no other shard has a larger one; that one's shard
    /// is asked to go on.
    pub(crate) fn evict_clients(&mut self) {
        if let Some(other) = self.evict_own_clients() {
            self.outbox.note(other, Note::EvictClients);
        }
    }

    /// As [`Shard::evict_clients`]; says who has a larger one.
    fn evict_own_clients(&mut self) -> Option<ShardId> {
        let own = self.core.id as usize;
        let limit = self.client_memory_limit;
        let mut looked_at_output = false;
        loop {
            let shared = self.core.shared.clone();
            let memory = &shared.client_memory;
            let total: usize = memory.iter().map(|memory| memory.0.total.load(Relaxed)).sum();
            if limit == 0 || total <= limit {
                return None;
            }
            if !std::mem::replace(&mut looked_at_output, true) {
                // Who is owed too much goes for that, also before the turn has ended, and makes room for others.
                (0..self.flush.len()).for_each(|at| self.check_output_limit(self.flush[at]));
                continue;
            }
            let may_go = |client: &&Client| !client.no_evict && client.gate & (gate::CLOSING | gate::REPLICA) == 0;
            let largest = self.clients().filter(may_go).max_by_key(|client| client.counted_bytes);
            let (bytes, index) = largest.map_or((0, 0), |client| (client.counted_bytes, client.index));
            memory[own].0.largest.store(bytes, Relaxed);
            let published = |(at, memory): (usize, &crate::shared::Lone<crate::shared::ClientMemory>)| {
                (memory.0.largest.load(Relaxed), at)
            };
            let (most, at) = memory.iter().enumerate().map(published).max().expect("there are shards");
            if most > bytes {
                return Some(at as ShardId);
            }
            if bytes == 0 {
                return None;
            }
            let client = self.client(index);
            let line = format!("Evicting client: id={} addr={} tot-mem={bytes}", client.id, client.peer.address);
            self.log(LogLevel::Notice, line);
            self.core.stats.evicted_clients += 1;
            self.close_now(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use crate::limits::LARGE_INPUT_BYTES;
    use crate::message::Parcel;
    use crate::router::owner_of;
    use crate::shard::Event;
    use crate::testing::{Conn, Value, World, request};

    fn fill(world: &mut World, conn: Conn, bytes: usize) {
        let text = format!("*1\r\n${}\r\n{}", 2 * bytes, "v".repeat(bytes));
        world.send(conn, text.as_bytes());
        world.end_turns();
    }

    /// The largest goes, on whichever shard it is, and no other.
    #[test]
    fn the_largest_client_goes() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let boss = world.connect();
            world.run(boss, "CONFIG SET maxmemory-clients 1000000");
            let small: Vec<Conn> = (0..6).map(|_| world.connect()).collect();
            for conn in &small {
                fill(&mut world, *conn, 50_000);
            }
            let spared = world.connect();
            world.run(spared, "CLIENT NO-EVICT ON");
            for round in 0..4 {
                let large = world.connect();
                fill(&mut world, large, 500_000);
                assert!(!world.is_open(large), "{round} on {shards} shard(s)");
                assert!(small.iter().all(|conn| world.is_open(*conn)));
            }
            assert!(world.run(boss, "INFO stats").text().contains("evicted_clients:4\r\n"));
            // One that may not go holds too much by itself: all others go before it stays.
            fill(&mut world, spared, 1_200_000);
            assert!(world.is_open(spared));
            assert!(small.iter().all(|conn| !world.is_open(*conn)));
            world.disconnect(spared);
            let total: usize = world.shared.client_memory.iter().map(|memory| memory.0.total.load(Relaxed)).sum();
            assert!(total < 10_000, "{total}");
        }
    }

    /// Queues, watched keys, subscriptions, prefixes and output count as well.
    #[test]
    fn all_that_a_client_holds_counts() {
        for shards in [1, 4] {
            for line in
                ["WATCH {}", "SUBSCRIBE {}", "PSUBSCRIBE {}", "SSUBSCRIBE {}", "CLIENT TRACKING ON BCAST PREFIX {}"]
            {
                let mut world = World::new(shards);
                let (boss, conn) = (world.connect(), world.connect());
                world.run(boss, "CLIENT NO-EVICT ON");
                world.run(boss, "CONFIG SET maxmemory-clients 50%");
                world.run(boss, "CONFIG SET maxmemory 100000");
                let mut sent = 0;
                while world.is_open(conn) {
                    sent += 1;
                    assert!(sent < 2000, "{line} on {shards} shard(s)");
                    world.send(conn, (line.replace("{}", &format!("name{sent:06}")) + "\r\n").as_bytes());
                    world.received(conn);
                    world.end_turns();
                }
                assert!(sent > 50, "{line}: {sent}");
            }
        }
    }

    /// A client list that was found beside what another client had sent too much of showed that client: neither had been
    /// counted what the batch had brought, nor was anybody closed before the end of the turn. Redis's "client evicted due to
    /// percentage of maxmemory" writes to one connection and asks on another at once, and met this on a busy machine.
    #[test]
    fn who_asks_for_clients_does_not_see_those_that_sent_too_much_before() {
        // As much of it as a loop reads at once.
        let large = format!("*1\r\n$400000\r\n{}", "v".repeat(LARGE_INPUT_BYTES))[..LARGE_INPUT_BYTES].to_owned();
        for shards in [1, 4] {
            for maxmemory in [0, 100_000_000] {
                let mut world = World::new(shards);
                let boss = world.connect_to(0);
                let line = format!("CONFIG SET maxmemory-clients 300000 maxmemory {maxmemory}");
                assert_eq!(world.run(boss, &line).to_string(), "OK");
                for home in 0..shards {
                    let conn = world.connect_to(home as u16);
                    world.run(conn, "CLIENT SETNAME large");
                    assert!(world.run(boss, "CLIENT LIST").text().contains("name=large"));
                    match home {
                        0 => world.send_together(&[(conn, large.as_bytes()), (boss, b"CLIENT LIST\r\n")]),
                        _ => {
                            world.send_only(conn, large.as_bytes());
                            world.send_only(boss, b"CLIENT LIST\r\n");
                        }
                    }
                    world.settle();
                    let said = String::from_utf8_lossy(&world.received(boss)).into_owned();
                    assert!(
                        said.contains("cmd=client|list") && !said.contains("name=large"),
                        "{shards}, {home}: {said}"
                    );
                    assert!(!world.is_open(conn));
                }
            }
        }
    }

    /// Who is owed more than a client's output may be goes for that, and others stay, also where the next command comes
    /// before the turn has ended.
    #[test]
    fn output_limits_go_first() {
        for (shards, maxmemory) in [(1, 0), (1, 100_000_000), (2, 0), (2, 100_000_000)] {
            let mut world = World::new(shards);
            let (boss, writer) = (world.connect_to(0), world.connect_to(0));
            let key = (0..).map(|i| format!("k{i}")).find(|key| owner_of(key.as_bytes(), shards) == 0).unwrap();
            world.call(writer, &["SET", &key, &"v".repeat(600_000)]);
            world.disconnect(writer);
            let lines = [
                format!("CONFIG SET maxmemory-clients 2000000 maxmemory {maxmemory}"),
                "CONFIG SET client-output-buffer-limit \"normal 500000 0 0\"".into(),
            ];
            lines.iter().for_each(|line| assert_eq!(world.run(boss, line).to_string(), "OK"));
            let home = shards as u16 - 1;
            let (holder, reader) = (world.connect_to(home), world.connect_to(home));
            fill(&mut world, holder, 800_000);
            assert!(world.is_open(holder));
            world.send_only(reader, &request(&["GET", &key]));
            if home != 0 {
                // The reply and the question come in one parcel.
                let mut parcels = Vec::new();
                world.shards[1].outbox.take(&mut |_, parcel| parcels.push(parcel));
                parcels.into_iter().for_each(|parcel| world.shards[0].step(Event::Parcel(parcel)));
            }
            world.send_only(boss, b"CLIENT LIST\r\n");
            world.settle();
            world.end_turns();
            assert!(!world.is_open(reader), "{shards} shard(s), maxmemory {maxmemory}");
            assert!(world.is_open(holder), "{shards} shard(s), maxmemory {maxmemory}");
        }
    }

    /// Under `maxmemory`, clients that hold too much go before the next command, which else would cost keys.
    #[test]
    fn clients_go_before_keys() {
        let value = "v".repeat(600_000);
        for fill in [&["GET", "big"][..], &["PUBLISH", "channel", &value]] {
            let mut world = World::new(1);
            let boss = world.connect();
            for line in ["CONFIG SET maxmemory-clients 1000000 maxmemory 100mb", "CLIENT NO-EVICT ON"] {
                assert_eq!(world.run(boss, line).to_string(), "OK");
            }
            world.call(boss, &["SET", "big", &value]);
            let others: Vec<Conn> = (0..3).map(|_| world.connect()).collect();
            for conn in &others {
                if fill[0] == "PUBLISH" {
                    world.run(*conn, "SUBSCRIBE channel");
                } else {
                    world.send_only(*conn, &request(fill));
                }
            }
            if fill[0] == "PUBLISH" {
                world.send_only(boss, &request(fill));
            }
            world.send_only(boss, b"INFO stats\r\n");
            world.settle();
            let said = String::from_utf8_lossy(&world.received(boss)).into_owned();
            assert!(said.contains("evicted_clients:2\r\n"), "{fill:?}: {said}");
        }
    }

    /// What a client of one shard is owed by another is counted before it comes, and keeps keys from being evicted so long
    /// as it is all that memory lacks.
    #[test]
    fn replies_that_are_under_way_count() {
        let mut world = World::new(2);
        let boss = world.connect_to(0);
        world.run(boss, "CONFIG SET maxmemory-clients 500000");
        let key = (0..).map(|i| format!("k{i}")).find(|key| owner_of(key.as_bytes(), 2) == 0).unwrap();
        let value = "v".repeat(600_000);
        world.call(boss, &["SET", &key, &value]);
        assert_eq!(world.shards[0].slice().unwrap().dbs[0].dict.len(), 1);
        world.run(boss, "CONFIG SET maxmemory 2000000");
        let under_way = |world: &World| {
            let memory = world.shared.client_memory.iter().map(|memory| memory.0.under_way.load(Relaxed));
            memory.collect::<Vec<_>>()
        };
        let carry = |world: &mut World, from: usize, to: usize| {
            let mut parcels = Vec::new();
            world.shards[from].outbox.take(&mut |at, parcel| parcels.push((at, parcel)));
            for (at, parcel) in parcels {
                assert_eq!(usize::from(at), to);
                world.shards[to].step(Event::Parcel(parcel));
            }
        };
        for line in [format!("GET {key}\r\n"), format!("MGET {key}\r\n")] {
            let conn = world.connect_to(1);
            world.send_only(conn, line.as_bytes());
            carry(&mut world, 1, 0);
            let bytes = under_way(&world)[0];
            assert!((600_000..1_300_000).contains(&bytes), "{line}: {bytes}");
            for (used, first) in [(1_999_999, false), (2_600_000, true), (2_000_001 + 2 * bytes, false)] {
                world.host.used_memory.store(used, Relaxed);
                assert_eq!(world.shards[1].clients_go_first(), first, "{line}: {used}");
            }
            carry(&mut world, 0, 1);
            assert_eq!(under_way(&world), [0, 0]);
            // It is the client's now, before the turn has ended.
            assert!(world.shared.client_memory[1].0.total.load(Relaxed) >= 600_000);
            world.host.used_memory.store(1 << 20, Relaxed);
            world.settle();
            assert!(Value::parse(&world.received(conn)).unwrap().1 >= 600_000);
            world.end_turns();
            assert!(!world.is_open(conn), "it held too much");
        }
        let conn = world.connect_to(1);
        // Nobody counts what nobody bounds, and what was under way meanwhile is not taken away from others'.
        world.run(boss, "CONFIG SET maxmemory-clients 0");
        world.send_only(conn, format!("GET {key}\r\n").as_bytes());
        carry(&mut world, 1, 0);
        assert_eq!(under_way(&world), [0, 0]);
        world.run(boss, "CONFIG SET maxmemory-clients 500000");
        world.settle();
        assert_eq!(under_way(&world), [0, 0]);
    }

    /// Parcels kept for reuse are no reason to evict keys: most go when memory is short, and what is kept is counted right.
    #[test]
    fn spare_parcels_go_before_keys() {
        let mut world = World::with_config(2, &[("maxmemory", "2000000"), ("maxmemory-policy", "allkeys-random")]);
        let spare = |world: &mut World, bytes: usize| {
            let mut parcel = Box::new(Parcel::default());
            parcel.replies.bytes.reserve_exact(bytes);
            world.shards[0].outbox.recycle(parcel);
        };
        (0..8).for_each(|_| spare(&mut world, 100_000));
        assert!(!world.shards[0].is_full());
        assert!(world.shards[0].outbox.has_large_spares(), "memory is not short");
        world.host.used_memory.store(3_000_000, Relaxed);
        world.shards[0].is_full();
        assert!(!world.shards[0].outbox.has_large_spares());
        // Two of them are left: a third is one too many.
        spare(&mut world, 100_000);
        assert!(world.shards[0].outbox.has_large_spares());
    }

    /// What lies ready for the next turn's messages costs no key, and goes when memory is short.
    #[test]
    fn spare_parcels_do_not_count() {
        let mut world = World::new(2);
        let (boss, conn) = (world.connect_to(0), world.connect_to(1));
        world.call(boss, &["SET", "{0}", &"v".repeat(400_000)]);
        world.host.used_memory.store(0, Relaxed);
        world.run(boss, "CONFIG SET maxmemory 1000000");
        world.call(conn, &["GET", "{0}"]);
        world.shards.iter_mut().for_each(|shard| shard.publish_spares());
        let spare = world.shared.uncounted_memory();
        assert!((100_000..1_000_000).contains(&spare), "{spare}");
        world.host.used_memory.store(1_000_000 + spare, Relaxed);
        assert!(world.shards.iter().all(|shard| !shard.core.memory_is_over()));
        assert_eq!(world.shared.uncounted_memory(), spare, "nobody wants them yet");
        world.host.used_memory.store(1_000_001 + spare, Relaxed);
        world.shards.iter_mut().for_each(|shard| shard.drop_spare_parcels());
        assert_eq!(world.shared.uncounted_memory(), 0);
    }

    /// A buffer that is being sent takes its memory until all of it is sent.
    #[test]
    fn a_buffer_counts_until_it_is_sent() {
        let mut world = World::new(1);
        let conn = world.connect();
        world.run(conn, "PING");
        let client = world.shards[0].clients.iter_mut().flatten().next().unwrap();
        let before = client.memory();
        let mut out = Vec::with_capacity(1_000_000);
        out.resize(600_000, 0u8);
        client.hand_out(&out);
        assert!(client.memory() >= 1_000_000);
        client.handed_out(599_999);
        assert!(client.memory() >= 1_000_000);
        assert_eq!(client.output_bytes(), 1);
        client.handed_out(1);
        assert_eq!(client.memory(), before);
    }
}
