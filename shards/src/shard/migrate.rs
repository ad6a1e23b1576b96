//! `MIGRATE` on the way: its keys are held by their owners while the driver takes their values to another server.
//!
//! The first half is a command that splits: each owner writes down what its keys are and holds them. When all have
//! answered the driver gets a [`Migration`], and the client waits. When the driver is back, owners delete what the
//! target has said that it took, and let go. Who needs a key that is held waits, and so does who needs a whole slice.

use super::Shard;
use super::dispatch::Next;
use crate::args::{Args, KeyPlace, OwnedArgs};
use crate::commands::migrate::{Migrated, Migration, Options, PART, deletion, read_key};
use crate::commands::spec::Split;
use crate::commands::{CommandId, table};
use crate::message::SpanWord;
use crate::resp::Reply;
use crate::router::{ShardId, owner_of};
use crate::shard::Effect;

/// What a `MIGRATE` under way is about.
#[derive(Debug)]
pub(crate) struct Errand {
    migration: Migration,
    copy: bool,
    replace: bool,
    /// The command as it was sent, and when, on the host's counter.
    args: OwnedArgs,
    began: u64,
    /// Its keys; once it is sent, those of them that there are.
    keys: Vec<Vec<u8>>,
}

impl Shard {
    /// Asks the owners of the keys for their values.
    pub(crate) fn start_migration(&mut self, index: u32, id: CommandId, args: Args<'_>) -> Next {
        let Options { migration, copy, replace, keys } = match Options::parse(args) {
            Ok(options) => options,
            Err(error) => {
                let text = error.text();
                self.core.stats.count_error(&text);
                self.core.stats.commands[id as usize].failed += 1;
                self.reply_in_order(index, |reply| reply.error(&text));
                return Next::Done;
            }
        };
        let keys: Vec<Vec<u8>> = keys.map(|i| args.at(i).to_vec()).collect();
        if keys.is_empty() {
            self.reply_in_order(index, |reply| reply.simple("NOKEY"));
            return Next::Done;
        }
        let mut part = OwnedArgs::from_words(&[PART]);
        keys.iter().for_each(|key| part.push(key));
        let shards = self.core.shards;
        let place = |key: &Vec<u8>| KeyPlace::new(self.core.hasher.hash(key), owner_of(key, shards));
        let places: Vec<KeyPlace> = keys.iter().map(place).collect();
        let errand =
            Box::new(Errand { migration, copy, replace, args: args.to_owned(), began: self.clock.now(), keys });
        self.start_split(index, id, part.args().with_places(&places), Split::Migrate, |split| {
            split.errand = Some(errand);
        })
    }

    /// All owners have answered: the driver goes, if there is anything to take along.
    pub(super) fn send_migration(&mut self, slot: u32) {
        let split = &mut self.splits.slots[slot as usize];
        let mut errand = split.errand.take().expect("a migration has one");
        let mut parts: Vec<(ShardId, &[u8])> =
            split.parts.iter().map(|(owner, at)| (*owner, &split.bytes[*at..])).collect();
        let mut found = Vec::new();
        for (key, place) in std::mem::take(&mut errand.keys).into_iter().zip(&split.places) {
            let part = parts.iter_mut().find(|(from, _)| *from == place.owner()).expect("each has answered");
            let (arguments, rest) = read_key(part.1);
            part.1 = rest;
            if let Some(arguments) = arguments {
                errand.migration.add(errand.replace, arguments);
                found.push(key);
            }
        }
        errand.keys = found;
        split.bytes = Vec::new();
        if errand.keys.is_empty() {
            split.errand = Some(errand);
            return self.end_migration(slot, &[], |reply| reply.simple("NOKEY"));
        }
        let migration = std::mem::take(&mut errand.migration);
        split.errand = Some(errand);
        self.effects.push(Effect::Migrate(slot, Box::new(migration)));
    }

    /// The driver is back.
    pub(crate) fn migrated(&mut self, slot: u32, outcome: &Migrated) {
        if let Err(text) = &outcome.result {
            let id = table().find(b"migrate");
            self.core.stats.count_error(text);
            self.core.stats.commands[id as usize].failed += 1;
        }
        self.end_migration(slot, &outcome.done, |reply| match &outcome.result {
            Ok(()) => reply.ok(),
            Err(text) => reply.error(text),
        });
        self.run_released();
    }

    /// Has owners delete the keys that are done, and let go of all; answers the client.
    fn end_migration(&mut self, slot: u32, done: &[bool], answer: impl FnOnce(&mut Reply<'_>)) {
        let split = &mut self.splits.slots[slot as usize];
        let (view, sequence, errand) = (split.client, split.sequence, split.errand.take());
        let errand = errand.expect("a migration has one");
        let ticks = self.clock.now().saturating_sub(errand.began);
        self.account_ticks(table().find(b"migrate"), errand.args.args(), view, ticks);
        let owners = std::mem::take(&mut self.splits.slots[slot as usize].owners);
        let shards = self.core.shards;
        let done = if errand.copy { &[] } else { done };
        let gone: Vec<(&[u8], bool)> = errand.keys.iter().map(Vec::as_slice).zip(done.iter().copied()).collect();
        let writes: Vec<(ShardId, Option<OwnedArgs>)> = owners
            .iter()
            .map(|owner| {
                let mine = gone.iter().filter(|(key, _)| owner_of(key, shards) == *owner);
                let (keys, done): (Vec<&[u8]>, Vec<bool>) = mine.copied().unzip();
                (*owner, deletion(keys.into_iter(), &done))
            })
            .collect();
        let participants: Vec<ShardId> =
            writes.iter().filter(|(_, write)| write.is_some()).map(|(owner, _)| *owner).collect();
        let span = (self.core.effects.on && participants.len() > 1).then(|| {
            let number = self.core.shared.aof.next_number();
            SpanWord { number, participants: participants.as_slice().into() }.to_bytes()
        });
        // As with all that splits, the reply is written before the keys are let go, and leaves after it.
        self.fulfil_with(view.index, view.id, sequence, |out| answer(&mut Reply::new(out, view.resp)));
        if span.is_some() {
            self.begin_commit(slot, &participants);
        }
        for (owner, write) in writes {
            match write {
                Some(write) => self.commit_at(owner, slot, view, write, span.as_deref()),
                None => self.release_at(owner, slot),
            }
        }
        if span.is_none() {
            self.splits.slots[slot as usize].owners = owners;
            self.splits.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Conn, Value, World, request};

    fn text(world: &mut World, conn: Conn) -> String {
        String::from_utf8(world.received(conn)).unwrap()
    }

    fn send(world: &mut World, conn: Conn, line: &str) {
        world.send(conn, &request(&crate::quote::split_args(line.as_bytes()).unwrap()));
    }

    /// The keys that are to be restored, in their order, and how.
    fn restored(migration: &super::Migration) -> Vec<String> {
        let commands = Value::parse_all(&migration.restores);
        assert_eq!(commands.len(), migration.count);
        let words = |command: &Value| {
            let words: Vec<String> = command.items().iter().map(Value::text).collect();
            format!("{} {} {} {}", words[0], words[1], words[2], words[4..].join(" "))
        };
        commands.iter().map(words).collect()
    }

    /// Keys of all shards travel, in the order named; they are held meanwhile and others are not; what the target has
    /// taken is deleted here, and nothing else.
    #[test]
    fn keys_are_held_while_they_travel() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            world.keeps_migrations = true;
            let (conn, other, third) = (world.connect(), world.connect(), world.connect());
            world.log_effects();
            for key in ["a", "b", "c", "d", "free"] {
                world.run(conn, &format!("SET {key} v"));
            }
            world.run(conn, "PEXPIRE c 5000");
            world.effects();
            send(&mut world, conn, "MIGRATE target 6380 '' 3 700 REPLACE AUTH2 me secret KEYS d none c b a");
            let (shard, slot, migration) = world.take_migration().unwrap();
            let expected = ["d 0 REPLACE", "c 5000 REPLACE", "b 0 REPLACE", "a 0 REPLACE"];
            assert_eq!(restored(&migration), expected.map(|words| format!("RESTORE {words}")));
            assert_eq!((migration.host.as_str(), migration.port.as_str()), ("target", "6380"));
            assert_eq!((migration.db, migration.timeout_ms), (3, 700));
            assert_eq!(migration.auth, Some((Some(b"me".to_vec()), b"secret".to_vec())));
            send(&mut world, other, "GET b");
            send(&mut world, third, "RENAME d d2");
            let fourth = world.connect();
            assert_eq!(world.run(fourth, "SET free w").to_string(), "OK");
            assert_eq!([text(&mut world, conn), text(&mut world, other), text(&mut world, third)], ["", "", ""]);
            let refused = "ERR Target instance replied with error: OOM no";
            world.migrated(shard, slot, &[true, false, true, true], Err(refused));
            assert_eq!(text(&mut world, conn), format!("-{refused}\r\n"));
            assert_eq!(text(&mut world, other), "$-1\r\n");
            assert_eq!(text(&mut world, third), "-ERR no such key\r\n");
            assert_eq!(world.run(conn, "EXISTS a b c d").to_string(), "1");
            let mut said = world.effects();
            said.retain(|line| line.starts_with("del"));
            let mut gone: Vec<&str> = said.iter().flat_map(|line| line.split(' ').skip(1)).collect();
            gone.sort_unstable();
            assert_eq!(gone, ["a", "b", "d"]);
            // Without an answer nothing is deleted.
            send(&mut world, conn, "MIGRATE target 6380 c 0 0");
            let (shard, slot, migration) = world.take_migration().unwrap();
            assert_eq!((restored(&migration), migration.timeout_ms), (vec!["RESTORE c 5000 ".to_string()], 1000));
            world.migrated(shard, slot, &[], Err("IOERR error or timeout reading to target instance"));
            assert_eq!(text(&mut world, conn), "-IOERR error or timeout reading to target instance\r\n");
            send(&mut world, conn, "MIGRATE target 6380 c 0 0 COPY");
            let (shard, slot, _) = world.take_migration().unwrap();
            // Its client may go meanwhile.
            world.disconnect(conn);
            world.migrated(shard, slot, &[true], Ok(()));
            assert_eq!(world.run(other, "EXISTS c").to_string(), "1");
            assert!(world.shards.iter().all(|shard| shard.is_quiet()));
            let stats = world.run(other, "INFO commandstats").text();
            assert!(stats.contains("cmdstat_migrate:calls=3,"), "{stats}");
        }
    }

    #[test]
    fn what_asks_for_nothing_sends_nothing() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            world.keeps_migrations = true;
            let conn = world.connect();
            world.run(conn, "SET k v");
            for (line, reply) in [
                ("MIGRATE h 1 none 0 1", "NOKEY"),
                ("MIGRATE h 1 '' 0 1 KEYS x y z", "NOKEY"),
                ("MIGRATE h 1 '' 0 1 KEYS", "NOKEY"),
                ("MIGRATE h 1 k 0", "-ERR wrong number of arguments for 'migrate' command"),
                ("MIGRATE h 1 k 0 1 AUTH", "-ERR syntax error"),
                ("MIGRATE h 1 k 0 1 AUTH2 x", "-ERR syntax error"),
                ("MIGRATE h 1 k 0 1 MOVE", "-ERR syntax error"),
                ("MIGRATE h 1 k x 1", "-ERR value is not an integer or out of range"),
                ("MIGRATE h 1 k 0 x", "-ERR value is not an integer or out of range"),
                (
                    "MIGRATE h 1 k 0 1 KEYS k",
                    "-ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                ),
                ("COMMAND GETKEYS MIGRATE h 1 '' 0 1 AUTH KEYS KEYS a b", r#"["a" "b"]"#),
                ("COMMAND GETKEYS MIGRATE h 1 k 0 1 COPY", r#"["k"]"#),
            ] {
                assert_eq!(world.run(conn, line).to_string(), reply, "{line}");
                assert!(world.take_migration().is_none(), "{line}");
            }
            // Where it cannot wait for the driver it asks the process itself; there is nobody to speak to here.
            world.run(conn, "MULTI");
            world.run(conn, "MIGRATE h 1 k 0 1");
            world.run(conn, "MIGRATE h 1 none 0 1");
            let nobody = "-IOERR error or timeout connecting to the client";
            assert_eq!(world.run(conn, "EXEC").to_string(), format!("[{nobody} NOKEY]"));
            assert_eq!(world.run(conn, "GET k").to_string(), "\"v\"");
            world.run(conn, "CONFIG SET slowlog-log-slower-than 0");
            world.run(conn, "MIGRATE h 1 none 0 1 AUTH pw");
            let slow = world.run(conn, "SLOWLOG GET 1");
            let words = slow.items()[0].items()[3].to_string();
            assert_eq!(words, r#"["MIGRATE" "h" "1" "none" "0" "1" "AUTH" "(redacted)"]"#);
        }
    }
}
