// BullMQ, unmodified, against a running server: `node bullmq.js PORT`. The last line counts what was tried.
//
// Nearly all that BullMQ does is Lua scripts over many keys of one queue, of which not all are declared, beside blocking
// pops and streams of events.
"use strict";

const assert = require("node:assert/strict");
const { FlowProducer, Queue, QueueEvents, UnrecoverableError, WaitingChildrenError, Worker } = require("bullmq");
const Redis = require("ioredis");

const port = Number(process.argv[2]);
const connection = { host: "127.0.0.1", port };
const JOBS = Number(process.env.RINGSHARD_BULLMQ_JOBS ?? 5000);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(what, condition) {
  for (const deadline = Date.now() + 30000; !(await condition()); await sleep(20)) {
    assert.ok(Date.now() < deadline, `waited in vain until ${what}`);
  }
}

// What a test opened; closed behind it, whether it went well or not.
let opened = [];
const keep = (thing) => {
  thing.on?.("error", (error) => console.log(error));
  opened.push(thing);
  return thing;
};
const queue = (name, options) => keep(new Queue(name, { connection, ...options }));
const flow = () => keep(new FlowProducer({ connection }));
const work = (name, how, options) =>
  keep(new Worker(name, how, { connection, drainDelay: 1, ...options }));

async function events(name) {
  const heard = keep(new QueueEvents(name, { connection, lastEventId: "0-0" }));
  await heard.waitUntilReady();
  return heard;
}

const tests = {
  async everyJobOnce() {
    const q = queue("many");
    const heard = await events("many");
    const completed = new Set();
    heard.on("completed", ({ jobId, returnvalue }) => completed.add(`${jobId}=${returnvalue}`));
    const done = new Map();
    const workers = Array.from({ length: 4 }, (_, i) =>
      work("many", async (job) => {
        done.set(job.data.n, (done.get(job.data.n) ?? 0) + 1);
        return job.data.n * 2;
      }, { concurrency: 25, name: `worker-${i}` }));
    await Promise.all(workers.map((worker) => worker.waitUntilReady()));
    const jobs = [];
    for (let from = 0; from < JOBS; from += 500) {
      jobs.push(...await q.addBulk(
        Array.from({ length: Math.min(500, JOBS - from) }, (_, i) => ({ name: "double", data: { n: from + i } }))));
    }
    await until("all are done", async () => (await q.getCompletedCount()) === JOBS);
    assert.equal(done.size, JOBS);
    assert.ok([...done.values()].every((times) => times === 1), "each runs once");
    assert.deepEqual(await q.getJobCounts("waiting", "active", "failed", "delayed"),
      { waiting: 0, active: 0, failed: 0, delayed: 0 });
    await until("all is told of", () => completed.size === JOBS);
    assert.ok(jobs.every((job) => completed.has(`${job.id}=${job.data.n * 2}`)));
    assert.equal((await q.getWorkers()).length, 4);
    assert.equal((await q.getJob(jobs[7].id)).returnvalue, 14);
  },

  async retries() {
    const q = queue("retries");
    const tries = new Map();
    work("retries", async (job) => {
      const count = (tries.get(job.name) ?? 0) + 1;
      tries.set(job.name, count);
      if (job.name === "hopeless") throw new UnrecoverableError("no use");
      if (count < job.data.works) throw new Error(`try ${count}`);
      return count;
    }, { concurrency: 10 });
    const backoff = (type) => ({ type, delay: 20 });
    const jobs = await Promise.all([
      q.add("fixed", { works: 3 }, { attempts: 5, backoff: backoff("fixed") }),
      q.add("exponential", { works: 4 }, { attempts: 5, backoff: backoff("exponential") }),
      q.add("at once", { works: 3 }, { attempts: 3 }),
      q.add("never", { works: 100 }, { attempts: 3, backoff: backoff("fixed") }),
      q.add("hopeless", {}, { attempts: 5 }),
    ]);
    await until("they have ended", async () => (await q.getCompletedCount()) + (await q.getFailedCount()) === 5);
    assert.deepEqual([...tries].sort(),
      [["at once", 3], ["exponential", 4], ["fixed", 3], ["hopeless", 1], ["never", 3]]);
    const never = await q.getJob(jobs[3].id);
    assert.equal(never.failedReason, "try 3");
    assert.equal(never.attemptsMade, 3);
    assert.equal(never.stacktrace.length, 3);
    // By hand.
    await never.updateData({ works: 4 });
    await never.retry();
    await until("the last has ended", async () => (await q.getCompletedCount()) === 4);
    await q.retryJobs({ state: "failed" });
    await until("it has failed again", async () => tries.get("hopeless") === 2 && (await q.getFailedCount()) === 1);
  },

  async delays() {
    const q = queue("delays");
    const order = [];
    const jobs = await q.addBulk([300, 100, 200, 0, 400].map((delay) => ({
      name: `after ${delay}`, data: {}, opts: { delay },
    })));
    const far = await q.add("far", {}, { delay: 3_600_000 });
    const near = await q.add("promoted", {}, { delay: 3_600_000 });
    assert.equal(await far.getState(), "delayed");
    work("delays", async (job) => {
      assert.ok(Date.now() >= job.timestamp + job.opts.delay - 1 || job.opts.delay > 1000, "not before its time");
      order.push(job.name);
    });
    await until("five are done", () => order.length === jobs.length);
    assert.deepEqual(order, ["after 0", "after 100", "after 200", "after 300", "after 400"]);
    await near.promote();
    await far.changeDelay(10);
    await until("the others too", () => order.length === jobs.length + 2);
    assert.equal(await q.getDelayedCount(), 0);
  },

  async rateLimits() {
    const q = queue("limited");
    const at = [];
    await q.addBulk(Array.from({ length: 25 }, (_, i) => ({ name: "job", data: { i } })));
    for (let i = 0; i < 2; i++) {
      work("limited", async () => at.push(Date.now()), { concurrency: 5, limiter: { max: 5, duration: 200 } });
    }
    await until("all are done", () => at.length === 25);
    at.sort((a, b) => a - b);
    // Five in each fifth of a second, whichever worker: the last group begins after four of these.
    assert.ok(at[24] - at[0] >= 600, `${at[24] - at[0]} ms`);
  },

  async priorities() {
    const q = queue("priorities");
    const order = [];
    const priorities = [5, 1, 3, 2, 4, 1, 5];
    for (const [i, priority] of priorities.entries()) await q.add(`${priority}:${i}`, {}, { priority });
    const last = await q.add("7:7", {}, { priority: 7 });
    await q.add("0:8", {});
    await last.changePriority({ priority: 2 });
    assert.deepEqual(await q.getCountsPerPriority([0, 1, 2, 7]), { 0: 1, 1: 2, 2: 2, 7: 0 });
    work("priorities", async (job) => order.push(job.name));
    await until("all are done", () => order.length === 9);
    assert.deepEqual(order, ["0:8", "1:1", "1:5", "2:3", "7:7", "3:2", "4:4", "5:0", "5:6"]);
    // Last in, first out, beside the usual order.
    const stack = queue("stack");
    await stack.pause();
    for (const name of ["a", "b", "c"]) await stack.add(name, {}, { lifo: true });
    const popped = [];
    work("stack", async (job) => popped.push(job.name));
    await stack.resume();
    await until("all are done", () => popped.length === 3);
    assert.deepEqual(popped, ["c", "b", "a"]);
  },

  async flows() {
    work("leaves", async (job) => job.data.n, { concurrency: 10 });
    work("branches", async (job) => {
      const values = Object.values(await job.getChildrenValues());
      return values.reduce((sum, value) => sum + value, 0);
    }, { concurrency: 3 });
    const trees = await flow().addBulk(Array.from({ length: 5 }, (_, tree) => ({
      name: "root", queueName: "branches",
      children: Array.from({ length: 4 }, (_, branch) => ({
        name: "branch", queueName: "branches",
        children: Array.from({ length: 5 }, (_, leaf) => ({
          name: "leaf", queueName: "leaves", data: { n: tree * 100 + branch * 10 + leaf },
        })),
      })),
    })));
    const q = queue("branches");
    for (const [tree, { job }] of trees.entries()) {
      await until("a root is done", async () => (await job.getState()) === "completed");
      assert.equal((await q.getJob(job.id)).returnvalue, 20 * tree * 100 + 5 * (10 + 20 + 30) + 4 * 10);
    }
    assert.equal((await flow().getFlow({ queueName: "branches", id: trees[0].job.id })).children.length, 4);
    // A child that fails takes its parent along where it says so, and is passed over where it says that.
    work("frail", async () => {
      throw new Error("frail");
    });
    const frail = (opts) => ({ name: "frail", queueName: "frail", opts });
    const { job: fails } = await flow().add(
      { name: "p", queueName: "branches", children: [frail({ failParentOnFailure: true })] });
    const { job: goesOn } = await flow().add(
      { name: "p", queueName: "branches", children: [frail({ ignoreDependencyOnFailure: true })] });
    await until("it fails too", async () => (await fails.getState()) === "failed");
    await until("it goes on", async () => (await goesOn.getState()) === "completed");
    // A parent that makes its children as it runs.
    const late = queue("late");
    const children = queue("leaves");
    let turns = 0;
    work("late", async (job, token) => {
      turns++;
      if (!job.data.asked) {
        await job.updateData({ asked: true });
        for (let n = 0; n < 3; n++) {
          await children.add("late leaf", { n }, { parent: { id: job.id, queue: job.queueQualifiedName } });
        }
        if (await job.moveToWaitingChildren(token)) throw new WaitingChildrenError();
      }
      return Object.values(await job.getChildrenValues()).sort();
    });
    const job = await late.add("p", {});
    await until("it is done", async () => (await job.getState()) === "completed");
    assert.deepEqual([(await late.getJob(job.id)).returnvalue, turns], [[0, 1, 2], 2]);
  },

  async repeating() {
    const q = queue("repeating");
    const runs = [];
    work("repeating", async (job) => runs.push(job.data.which));
    await q.upsertJobScheduler("often", { every: 50 }, { name: "tick", data: { which: "often" } });
    await q.upsertJobScheduler("twice", { every: 30, limit: 2 }, { name: "tick", data: { which: "twice" } });
    await q.upsertJobScheduler("yearly", { pattern: "0 0 1 1 *" }, { name: "tick", data: { which: "yearly" } });
    await until("it has run six times", () => runs.filter((which) => which === "often").length >= 6);
    await until("the other twice", () => runs.filter((which) => which === "twice").length === 2);
    assert.equal(await q.removeJobScheduler("often"), true);
    assert.deepEqual((await q.getJobSchedulers()).map(({ key }) => key).filter((key) => key !== "twice"), ["yearly"]);
    assert.ok(!runs.includes("yearly"));
    await until("no run is left over", async () => (await q.getActiveCount()) === 0);
    const count = runs.length;
    await sleep(200);
    assert.equal(runs.length, count, "it repeats no more");
  },

  async events() {
    const q = queue("events");
    const heard = await events("events");
    const told = [];
    for (const name of ["added", "waiting", "active", "progress", "completed", "failed", "removed", "drained"]) {
      heard.on(name, ({ jobId }) => told.push(`${name} ${jobId ?? ""}`.trim()));
    }
    work("events", async (job) => {
      await job.updateProgress(50);
      await job.log("half of it");
      await job.log("the rest");
      if (job.name === "bad") throw new Error("bad");
      return { fine: true };
    });
    const good = await q.add("good", {}, { jobId: "good" });
    assert.deepEqual(await good.waitUntilFinished(heard, 30000), { fine: true });
    const bad = await q.add("bad", {}, { jobId: "bad" });
    await assert.rejects(bad.waitUntilFinished(heard, 30000), /bad/);
    assert.deepEqual((await q.getJobLogs("good")).logs, ["half of it", "the rest"]);
    assert.equal((await q.getJob("good")).progress, 50);
    await (await q.getJob("good")).remove();
    const wanted = ["good", "bad"].flatMap((id) =>
      ["added", "waiting", "active", "progress"].map((name) => `${name} ${id}`));
    wanted.push("completed good", "failed bad", "removed good", "drained");
    await until(`all is told of: ${wanted.filter((event) => !told.includes(event))}`, () => wanted.every((event) => told.includes(event)));
    assert.ok(told.indexOf("active good") < told.indexOf("completed good"));
  },

  async pausing() {
    const q = queue("pausing");
    let done = 0;
    const worker = work("pausing", async () => done++);
    await worker.waitUntilReady();
    await q.pause();
    assert.equal(await q.isPaused(), true);
    await q.addBulk(Array.from({ length: 20 }, () => ({ name: "job", data: {} })));
    await sleep(100);
    assert.equal(done, 0);
    assert.equal((await q.getJobCounts("paused", "waiting")).paused + (await q.getWaitingCount()) >= 20, true);
    await q.resume();
    await until("all are done", () => done === 20);
    // One worker alone.
    await worker.pause();
    await q.add("job", {});
    await sleep(50);
    assert.equal(done, 20);
    worker.resume();
    await until("the last is done", () => done === 21);
  },

  async removing() {
    const q = queue("removing");
    const jobs = await q.addBulk(Array.from({ length: 100 }, (_, i) => ({
      name: "job", data: {}, opts: { delay: i % 2 ? 3_600_000 : 0, priority: i % 4 === 2 ? 3 : 0 },
    })));
    for (const job of jobs.slice(0, 20)) await job.remove();
    assert.equal(await q.count(), 80);
    assert.equal(await q.getJob(jobs[0].id), undefined);
    await q.drain();
    assert.deepEqual(await q.getJobCounts("waiting", "delayed", "prioritized"),
      { waiting: 0, delayed: 40, prioritized: 0 });
    await q.drain(true);
    assert.equal(await q.count(), 0);
    // What is done goes by itself, or is cleaned.
    let done = 0;
    work("removing", async () => done++, { concurrency: 20 });
    await q.addBulk(Array.from({ length: 50 }, () => ({ name: "job", data: {}, opts: { removeOnComplete: true } })));
    await q.addBulk(Array.from({ length: 50 }, () => ({ name: "job", data: {}, opts: { removeOnComplete: 10 } })));
    await until("all are done", async () => done === 100 && (await q.getActiveCount()) === 0);
    assert.equal(await q.getCompletedCount(), 10);
    assert.equal((await q.clean(0, 100, "completed")).length, 10);
    // The same job twice is one, and so is one that is known by its content.
    await q.pause();
    await q.add("job", {}, { jobId: "one" });
    await q.add("job", {}, { jobId: "one" });
    await q.add("job", {}, { deduplication: { id: "two", ttl: 60000 } });
    await q.add("job", {}, { deduplication: { id: "two", ttl: 60000 } });
    assert.equal(await q.count(), 2);
    await q.obliterate({ force: true });
    const redis = new Redis(connection);
    assert.deepEqual((await redis.keys("bull:removing:*")).filter((key) => !/stalled-check|:de:/.test(key)), []);
    redis.disconnect();
  },

  async stalling() {
    const q = queue("stalling");
    const heard = await events("stalling");
    const stalled = [];
    heard.on("stalled", ({ jobId }) => stalled.push(jobId));
    const runs = [];
    let release;
    const stuck = new Promise((resolve) => (release = resolve));
    const options = { lockDuration: 500, stalledInterval: 200 };
    const first = work("stalling", async (job) => {
      runs.push(["first", job.id]);
      await stuck;
    }, { ...options, concurrency: 3, skipLockRenewal: true, skipStalledCheck: true });
    const jobs = await q.addBulk(Array.from({ length: 3 }, (_, i) => ({ name: "job", data: { i } })));
    await until("the first holds all", () => runs.length === 3);
    // It is as if it were gone: nobody renews its locks.
    work("stalling", async (job) => runs.push(["second", job.id]), options);
    await until("another has done them", async () => (await q.getCompletedCount()) === 3);
    const ids = jobs.map(({ id }) => id).sort();
    assert.deepEqual(runs.filter(([who]) => who === "second").map(([, id]) => id).sort(), ids);
    await until("that is told", () => stalled.length >= 3);
    assert.deepEqual([...new Set(stalled)].sort(), ids);
    // What it ends now is another's already: it is told so, and nothing is done twice.
    const refused = [];
    first.removeAllListeners("error");
    first.on("error", (error) => refused.push(error.message));
    release();
    await until("the first has noticed", () => refused.length >= 3);
    assert.ok(refused.every((text) => /lock|not in the active state/i.test(text)), refused.join());
    assert.equal(await q.getCompletedCount(), 3);
  },
};

async function main() {
  const redis = new Redis(connection);
  const wanted = process.env.RINGSHARD_CLIENT_TEST ?? "";
  let passed = 0;
  let failed = 0;
  for (const [name, test] of Object.entries(tests)) {
    if (!name.includes(wanted)) continue;
    await redis.flushall();
    const began = Date.now();
    try {
      await test();
      passed++;
      console.log(`${name}: ok, ${Date.now() - began} ms`);
    } catch (error) {
      failed++;
      console.log(`${name}:`, error);
    }
    for (const thing of opened.reverse()) await Promise.race([thing.close(), sleep(5000)]);
    opened = [];
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}

main();
