// ioredis, unmodified, against a running server: `node ioredis.js PORT [TLS_PORT CERTIFICATES UNIX_SOCKET]`, where
// CERTIFICATES is a directory with `ca.crt`, `client.crt` and `client.key`. The last line counts what was tried.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const Redis = require("ioredis");

const port = Number(process.argv[2]);
const [tlsPort, certificates, unixSocket] = process.argv.slice(3);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Waits for something, patiently.
async function until(what, condition) {
  for (const deadline = Date.now() + 30000; !(await condition()); await sleep(10)) {
    assert.ok(Date.now() < deadline, `waited in vain until ${what}`);
  }
}

const tests = {
  async strings(redis) {
    assert.equal(await redis.set("k", "v"), "OK");
    assert.equal(await redis.get("k"), "v");
    assert.equal(await redis.set("k", "w", "EX", 100, "NX"), null);
    assert.equal(await redis.set("k", "w", "EX", 100), "OK");
    assert.ok((await redis.ttl("k")) > 0);
    assert.equal(await redis.incrby("n", 7), 7);
    assert.equal(await redis.mset({ a: 1, b: 2, c: 3 }), "OK");
    assert.deepEqual(await redis.mget("a", "b", "none", "c"), ["1", "2", null, "3"]);
    assert.deepEqual(await redis.getBuffer("a"), Buffer.from("1"));
    await assert.rejects(redis.incr("k"), /value is not an integer/);
  },

  async keys(redis) {
    const pipeline = redis.pipeline();
    for (let i = 0; i < 500; i++) pipeline.set(`key:${i}`, i);
    const replies = await pipeline.exec();
    assert.equal(replies.length, 500);
    assert.ok(replies.every(([error, reply]) => error === null && reply === "OK"));
    const seen = new Set();
    for await (const keys of redis.scanStream({ match: "key:*", count: 13 })) keys.forEach((key) => seen.add(key));
    assert.equal(seen.size, 500);
    assert.equal(await redis.del("key:1", "key:2", "none"), 2);
    assert.equal(await redis.dbsize(), 498);
    assert.equal(await redis.rename("key:3", "key:1"), "OK");
    assert.equal(await redis.exists("key:1", "key:3"), 1);
  },

  async multi(redis) {
    const replies = await redis.multi().set("a", 1).incr("a").mget("a", "none").exec();
    assert.deepEqual(replies, [[null, "OK"], [null, 2], [null, ["2", null]]]);
    const other = redis.duplicate();
    await redis.watch("a");
    await other.set("a", 50);
    assert.equal(await redis.multi().incr("a").exec(), null);
    assert.equal(await redis.get("a"), "50");
    other.disconnect();
  },

  async automaticPipelining() {
    const redis = new Redis({ host: "127.0.0.1", port, enableAutoPipelining: true });
    const values = await Promise.all(
      Array.from({ length: 1000 }, (_, i) => redis.set(`auto:${i}`, i).then(() => redis.get(`auto:${i}`))),
    );
    values.forEach((value, i) => assert.equal(value, String(i)));
    redis.disconnect();
  },

  async databases(redis) {
    const other = new Redis({ host: "127.0.0.1", port, db: 2 });
    await other.set("there", 1);
    assert.equal(await redis.get("there"), null);
    await redis.select(2);
    assert.equal(await redis.get("there"), "1");
    assert.equal(await other.client("SETNAME", "other"), "OK");
    assert.equal(await other.client("GETNAME"), "other");
    other.disconnect();
  },

  async scripts(redis) {
    redis.defineCommand("addTwice", {
      numberOfKeys: 1,
      lua: "redis.call('incrby', KEYS[1], ARGV[1]) return redis.call('incrby', KEYS[1], ARGV[1])",
    });
    assert.equal(await redis.addTwice("count", 2), 4);
    await redis.script("FLUSH");
    assert.equal(await redis.addTwice("count", 3), 10);
    const replies = await redis.pipeline().addTwice("count", 1).get("count").exec();
    assert.deepEqual(replies, [[null, 12], [null, "12"]]);
    // Keys in numbers that the call says, tables of tables back, and keys that nobody declared.
    redis.defineCommand("gather", {
      lua: `local found = {}
            for i, key in ipairs(KEYS) do found[i] = {key, redis.call('GET', key)} end
            redis.call('HSET', 'gathered:' .. ARGV[1], 'n', #KEYS)
            return found`,
    });
    await redis.mset(Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`g${i}`, i])));
    const keys = Array.from({ length: 20 }, (_, i) => `g${i}`);
    const wanted = keys.map((key, i) => [key, String(i)]);
    const all = await Promise.all(Array.from({ length: 50 }, (_, i) => redis.gather(20, ...keys, i)));
    all.forEach((found) => assert.deepEqual(found, wanted));
    assert.equal((await redis.keys("gathered:*")).length, 50);
    assert.deepEqual(await redis.gatherBuffer(1, "g1", "b"), [[Buffer.from("g1"), Buffer.from("1")]]);
    assert.deepEqual(await redis.multi().addTwice("count", 1).get("count").exec(), [[null, 14], [null, "14"]]);
  },

  async pubsub(redis) {
    const subscriber = redis.duplicate();
    const heard = [];
    subscriber.on("message", (channel, text) => heard.push([channel, text]));
    subscriber.on("pmessage", (pattern, channel, text) => heard.push([pattern, channel, text]));
    subscriber.on("messageBuffer", (channel, text) => assert.ok(Buffer.isBuffer(text)));
    assert.equal(await subscriber.subscribe("a", "b"), 2);
    assert.equal(await subscriber.psubscribe("c*"), 3);
    for (let i = 0; i < 100; i++) {
      assert.equal(await redis.publish("a", `a${i}`), 1);
      assert.equal(await redis.publish("cd", `c${i}`), 1);
    }
    await until("all is heard", () => heard.length >= 200);
    assert.deepEqual(heard, Array.from({ length: 200 }, (_, i) =>
      i % 2 ? ["c*", "cd", `c${(i - 1) / 2}`] : ["a", `a${i / 2}`]));
    await assert.rejects(subscriber.get("k"), /subscriber mode/);
    // A connection that is cut comes back with its subscriptions.
    const ready = new Promise((resolve) => subscriber.once("ready", resolve));
    subscriber.stream.destroy();
    await ready;
    await until("it subscribes again", async () => (await redis.pubsub("NUMSUB", "a"))[1] === 1);
    await until("its pattern is back", async () => (await redis.pubsub("NUMPAT")) === 1);
    assert.equal(await redis.publish("b", "again"), 1);
    await until("the last is heard", () => heard.length === 201);
    assert.equal(await subscriber.unsubscribe("a", "b"), 1);
    assert.equal(await subscriber.punsubscribe("c*"), 0);
    assert.equal(await subscriber.get("k"), null);
    // Sharded channels.
    subscriber.on("smessage", (channel, text) => heard.push([channel, text]));
    assert.equal(await subscriber.ssubscribe("s"), 1);
    assert.equal(await redis.spublish("s", "sharded"), 1);
    await until("the sharded one is heard", () => heard.length === 202);
    subscriber.disconnect();
  },

  async streams(redis) {
    await redis.xgroup("CREATE", "s", "g", "$", "MKSTREAM");
    const consumers = Array.from({ length: 4 }, () => redis.duplicate());
    const taken = [];
    let open = true;
    const running = consumers.map(async (own, i) => {
      while (open) {
        const reply = await own.xreadgroup("GROUP", "g", `c${i}`, "COUNT", 5, "BLOCK", 100, "STREAMS", "s", ">");
        for (const [, entries] of reply ?? []) {
          for (const [id, fields] of entries) {
            taken.push(fields[1]);
            assert.equal(await own.xack("s", "g", id), 1);
          }
        }
      }
    });
    const wanted = Array.from({ length: 500 }, (_, i) => String(i));
    await Promise.all(wanted.map((n) => redis.xadd("s", "*", "n", n)));
    await until("all is taken", () => taken.length >= 500);
    open = false;
    await Promise.all(running);
    consumers.forEach((own) => own.disconnect());
    assert.deepEqual(taken.map(Number).sort((a, b) => a - b), wanted.map(Number));
    assert.deepEqual(await redis.xpending("s", "g"), [0, null, null, null]);
    assert.equal((await redis.xrange("s", "-", "+", "COUNT", 3)).length, 3);
    assert.equal(await redis.xtrim("s", "MAXLEN", 10), 490);
  },

  async blocking(redis) {
    const waiting = Array.from({ length: 10 }, () => redis.duplicate());
    const pops = waiting.map((own, i) => own.blpop(`q${i}`, "shared", 20));
    await until("all wait", async () => /blocked_clients:10\r/.test(await redis.info("clients")));
    await Promise.all(Array.from({ length: 5 }, (_, i) => redis.rpush(`q${i}`, `own${i}`)));
    await redis.rpush("shared", 5, 6, 7, 8, 9);
    const popped = await Promise.all(pops);
    popped.slice(0, 5).forEach((pair, i) => assert.deepEqual(pair, [`q${i}`, `own${i}`]));
    assert.deepEqual(popped.slice(5).map(([, value]) => Number(value)).sort(), [5, 6, 7, 8, 9]);
    waiting.forEach((own) => own.disconnect());
  },

  async unusualPipelines(redis) {
    await redis.set("k", "text");
    const replies = await redis.pipeline().incr("k").get("k").lpush("k", 1).exec();
    assert.match(replies[0][0].message, /not an integer/);
    assert.deepEqual(replies[1], [null, "text"]);
    assert.match(replies[2][0].message, /WRONGTYPE/);
    // MULTI inside of a pipeline, and one that is refused.
    const multi = await redis.multi({ pipeline: false });
    assert.equal(multi, "OK");
    assert.equal(await redis.set("a", 1), "QUEUED");
    assert.equal(await redis.get("a"), "QUEUED");
    assert.deepEqual(await redis.exec(), [[null, "OK"], [null, "1"]]);
    await assert.rejects(redis.multi().set("a").get("a").exec(), /EXECABORT/);
    const big = "x".repeat(2_000_000);
    const values = await redis.pipeline(Array.from({ length: 20 }, (_, i) => ["set", `big${i}`, big])).exec();
    assert.ok(values.every(([, reply]) => reply === "OK"));
    assert.equal(await redis.get("big7"), big);
  },

  async monitor(redis) {
    const monitor = await redis.monitor();
    const seen = [];
    monitor.on("monitor", (time, args, source, database) => seen.push(args));
    await redis.set("watched", "over");
    await until("it is shown", () => seen.some((args) => args.join(" ") === "set watched over"));
    monitor.disconnect();
  },

  async users(redis) {
    assert.equal(await redis.acl("SETUSER", "reader", "on", ">secret", "~r:*", "+@read", "+info", "-@dangerous"), "OK");
    const own = new Redis({ host: "127.0.0.1", port, username: "reader", password: "secret", enableReadyCheck: false });
    assert.equal(await own.get("r:1"), null);
    await assert.rejects(own.get("k"), /NOPERM/);
    await assert.rejects(own.set("r:1", 1), /NOPERM/);
    own.disconnect();
    await redis.acl("DELUSER", "reader");
  },

  async tls(redis) {
    if (!tlsPort) return;
    const file = (name) => fs.readFileSync(path.join(certificates, name));
    const tls = { ca: file("ca.crt"), cert: file("client.crt"), key: file("client.key") };
    const own = new Redis({ host: "127.0.0.1", port: Number(tlsPort), tls });
    const big = "y".repeat(3_000_000);
    assert.equal(await own.set("big", big), "OK");
    assert.equal(await own.get("big"), big);
    assert.equal(await redis.strlen("big"), 3_000_000);
    const pipeline = own.pipeline();
    for (let i = 0; i < 2000; i++) pipeline.incr(`n${i % 100}`);
    assert.deepEqual((await pipeline.exec()).slice(-100).map(([, n]) => n), Array(100).fill(20));
    const subscriber = own.duplicate();
    await subscriber.subscribe("c");
    const heard = new Promise((resolve) => subscriber.once("message", (_, text) => resolve(text)));
    await redis.publish("c", "through plain text");
    assert.equal(await heard, "through plain text");
    subscriber.disconnect();
    own.disconnect();
    const stranger = new Redis({
      host: "127.0.0.1", port: Number(tlsPort), tls: { ca: tls.ca }, retryStrategy: null, maxRetriesPerRequest: 0,
    });
    stranger.on("error", () => {});
    await assert.rejects(stranger.ping());
    stranger.disconnect();
  },

  async unixSocket(redis) {
    if (!unixSocket) return;
    const own = new Redis(unixSocket);
    assert.equal(await own.set("k", "v"), "OK");
    assert.equal(await redis.get("k"), "v");
    own.disconnect();
  },
};

async function main() {
  let passed = 0;
  let failed = 0;
  const wanted = process.env.RINGSHARD_CLIENT_TEST ?? "";
  for (const [name, test] of Object.entries(tests)) {
    if (!name.includes(wanted)) continue;
    const redis = new Redis({ host: "127.0.0.1", port, maxRetriesPerRequest: 0 });
    try {
      await redis.flushall();
      await test(redis);
      passed++;
      console.log(`${name}: ok`);
    } catch (error) {
      failed++;
      console.log(`${name}:`, error);
    } finally {
      redis.disconnect();
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}

main();
