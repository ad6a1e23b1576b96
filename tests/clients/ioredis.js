// ioredis, unmodified, against a running server: `node ioredis.js PORT`. The last line counts what was tried.
"use strict";

const assert = require("node:assert/strict");
const Redis = require("ioredis");

const port = Number(process.argv[2]);

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
  },
};

async function main() {
  let passed = 0;
  let failed = 0;
  for (const [name, test] of Object.entries(tests)) {
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
