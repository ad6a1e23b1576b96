// node-redis (the package `redis`), unmodified, against a running server: `node node_redis.js PORT`, with RESP2 and with
// RESP3. The last line counts what was tried.
"use strict";

const assert = require("node:assert/strict");
const { createClient, createClientPool, defineScript, WatchError } = require("redis");

const port = Number(process.argv[2]);
let RESP = 2;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what, condition) {
  for (const deadline = Date.now() + 30000; !(await condition()); await sleep(10)) {
    assert.ok(Date.now() < deadline, `waited in vain until ${what}`);
  }
}

async function connect(more) {
  const client = createClient({ RESP, socket: { host: "127.0.0.1", port }, ...more });
  client.on("error", () => {});
  return client.connect();
}

const tests = {
  async values(redis) {
    assert.equal(await redis.set("k", "v", { EX: 100, NX: true }), "OK");
    assert.equal(await redis.get("k"), "v");
    assert.equal(await redis.set("k", "w", { NX: true }), null);
    await redis.hSet("h", { a: 1, b: "two" });
    assert.deepEqual({ ...(await redis.hGetAll("h")) }, { a: "1", b: "two" });
    await redis.zAdd("z", [{ score: 1, value: "a" }, { score: 2.5, value: "b" }]);
    assert.deepEqual(await redis.zRangeWithScores("z", 0, -1), [{ value: "a", score: 1 }, { value: "b", score: 2.5 }]);
    assert.equal(await redis.zScore("z", "b"), 2.5);
    assert.deepEqual(await redis.zPopMin("z"), { value: "a", score: 1 });
    await redis.sAdd("s", ["1", "2", "3"]);
    assert.equal(new Set(await redis.sMembers("s")).size, 3);
    assert.deepEqual(await redis.mGet(["k", "none"]), ["v", null]);
    assert.equal((await redis.geoAdd("g", { longitude: 13.36, latitude: 38.11, member: "Palermo" })), 1);
    await assert.rejects(redis.incr("k"), /not an integer/);
    assert.match(await redis.info("server"), /redis_version:/);
    assert.ok((await redis.configGet("maxmemory")).maxmemory === "0");
    assert.ok((await redis.clientList()).length >= 1);
  },

  async automaticPipelines(redis) {
    const n = 3000;
    const replies = await Promise.all(Array.from({ length: n }, (_, i) => redis.set(`k${i}`, `${i}`)));
    assert.ok(replies.every((reply) => reply === "OK"));
    assert.deepEqual(await redis.mGet([`k${n - 1}`, "k0"]), [`${n - 1}`, "0"]);
    const found = new Set();
    for await (const keys of redis.scanIterator({ MATCH: "k*", COUNT: 100 })) [keys].flat().forEach((k) => found.add(k));
    assert.equal(found.size, n);
  },

  async multi(redis) {
    assert.deepEqual(await redis.multi().set("a", "1").incr("a").mGet(["a", "none"]).exec(), ["OK", 2, ["2", null]]);
    const other = await connect();
    await redis.watch("a");
    await other.set("a", "50");
    await assert.rejects(redis.multi().incr("a").exec(), WatchError);
    assert.equal(await redis.get("a"), "50");
    const pool = createClientPool({ RESP, socket: { host: "127.0.0.1", port } }, { minimum: 4, maximum: 4 });
    await pool.connect();
    await Promise.all(Array.from({ length: 200 }, () => pool.incr("pooled")));
    assert.equal(await pool.get("pooled"), "200");
    await pool.close();
    other.destroy();
  },

  async scripts(redis) {
    const own = await connect({
      scripts: {
        raise: defineScript({
          NUMBER_OF_KEYS: 1,
          SCRIPT: "return redis.call('INCRBY', KEYS[1], ARGV[1])",
          parseCommand(parser, key, by) {
            parser.pushKey(key);
            parser.push(String(by));
          },
          transformReply: (reply) => reply,
        }),
      },
    });
    assert.deepEqual(await Promise.all([own.raise("n", 1), own.raise("n", 2), own.raise("m", 3)]), [1, 3, 3]);
    await redis.scriptFlush();
    assert.equal(await own.raise("n", 4), 7);
    assert.deepEqual(await redis.eval("return {1, 'a', false, {2}}", { keys: [], arguments: [] }), [1, "a", null, [2]]);
    own.destroy();
  },

  async pubsub(redis) {
    const subscriber = await connect();
    const heard = [];
    await subscriber.subscribe(["a", "b"], (text, channel) => heard.push(channel + text));
    await subscriber.pSubscribe("c*", (text, channel) => heard.push(channel + text));
    await subscriber.sSubscribe("s", (text, channel) => heard.push(channel + text));
    for (let i = 0; i < 50; i++) {
      assert.equal(await redis.publish("a", `${i}`), 1);
      assert.equal(await redis.publish("cd", `${i}`), 1);
    }
    assert.equal(await redis.sPublish("s", "x"), 1);
    await until("all is heard", () => heard.length === 101);
    if (RESP === 3) {
      // The same connection goes on asking.
      assert.equal(await subscriber.ping(), "PONG");
    }
    await subscriber.unsubscribe(["a", "b"]);
    await subscriber.pUnsubscribe("c*");
    await subscriber.sUnsubscribe("s");
    assert.equal(String(await subscriber.echo("back")), "back");
    subscriber.destroy();
  },

  async streams(redis) {
    await redis.xGroupCreate("s", "g", "$", { MKSTREAM: true });
    for (let i = 0; i < 10; i++) await redis.xAdd("s", "*", { n: `${i}` });
    assert.equal((await redis.xRange("s", "-", "+")).length, 10);
    // The library refuses to read groups with RESP3.
    if (RESP === 2) {
      const reply = await redis.xReadGroup("g", "c", { key: "s", id: ">" }, { COUNT: 100, BLOCK: 10000 });
      const messages = reply[0].messages;
      assert.deepEqual(messages.map(({ message }) => message.n), Array.from({ length: 10 }, (_, i) => `${i}`));
      assert.equal(await redis.xAck("s", "g", messages.map(({ id }) => id)), 10);
      assert.equal((await redis.xPending("s", "g")).pending, 0);
    }
    const blocked = await connect();
    const waiting = blocked.blPop("queue", 20);
    await redis.rPush("queue", "x");
    assert.deepEqual({ ...(await waiting) }, { key: "queue", element: "x" });
    blocked.destroy();
  },

  async caching(redis) {
    if (RESP === 2) return;
    const own = await connect({ clientSideCache: { ttl: 0, maxEntries: 1000, evictPolicy: "LRU" } });
    await redis.set("cached", "1");
    for (let i = 0; i < 5; i++) assert.equal(await own.get("cached"), "1");
    await redis.set("cached", "2");
    await until("the client is told", async () => (await own.get("cached")) === "2");
    await redis.flushAll();
    await until("the client is told of the flush", async () => (await own.get("cached")) === null);
    own.destroy();
  },

  async reconnecting(redis) {
    const own = await connect({ name: "tester" });
    const id = await own.clientId();
    assert.equal(await redis.clientKill({ filter: "ID", id }), 1);
    await until("it is back", () => own.isReady);
    await until("it has another number", async () => (await own.clientId().catch(() => id)) !== id);
    assert.equal(await own.clientGetName(), "tester");
    own.destroy();
  },
};

async function main() {
  let passed = 0;
  let failed = 0;
  const wanted = process.env.RINGSHARD_CLIENT_TEST ?? "";
  for (RESP of [2, 3]) {
    for (const [name, test] of Object.entries(tests)) {
      if (!name.includes(wanted)) continue;
      const redis = await connect();
      try {
        await redis.flushAll();
        await test(redis);
        passed++;
        console.log(`${name} with RESP${RESP}: ok`);
      } catch (error) {
        failed++;
        console.log(`${name} with RESP${RESP}:`, error);
      } finally {
        redis.destroy();
      }
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}

main();
