"""redis-py, unmodified, against a running server: `redis_py.py PARSER PORT [TLS_PORT CERTIFICATES UNIX_SOCKET]`.

PARSER is `python` or `hiredis`. CERTIFICATES is a directory with `ca.crt`, `client.crt` and `client.key`; without it and
the socket their tests are left out. The parts are functions named `test_*`; each gets a client on an empty database, and
runs with RESP2 and with RESP3. The last line counts them.
"""

import asyncio
import os
import sys
import threading
import time

PARSER, PORT = sys.argv[1], int(sys.argv[2])
if PARSER == "python":
    # redis-py takes the parser in C wherever it can be imported.
    sys.modules["hiredis"] = None

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.retry
from redis.cache import CacheConfig
from runner import report, run, tests_of

assert redis.utils.HIREDIS_AVAILABLE == (PARSER == "hiredis")
TLS_PORT, CERTIFICATES, UNIX_SOCKET = (sys.argv[3:] + [None] * 3)[:3]
# What the test at hand speaks.
PROTOCOL = 2


def connect(**more):
    """Another client of the same kind as the test's own."""
    return redis.Redis(**{"host": "127.0.0.1", "port": PORT, "protocol": PROTOCOL, "socket_timeout": 30, **more})


def connect_async(**more):
    return redis.asyncio.Redis(**{"host": "127.0.0.1", "port": PORT, "protocol": PROTOCOL, "socket_timeout": 30, **more})


def in_threads(count, work):
    """Runs `work(number)` in so many threads, and raises what one of them raised."""
    errors = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def raises(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"{kind.__name__} was expected")


def test_strings(r):
    assert r.set("k", "v") is True
    assert r.get("k") == b"v"
    assert r.set("k", "w", nx=True) is None
    assert r.set("k", "w", xx=True, get=True) == b"v"
    assert r.append("k", "xyz") == 4
    assert r.getrange("k", 1, -1) == b"xyz"
    assert r.setrange("k", 2, "__") == 4
    assert r.get("k") == b"wx__"
    assert r.incrby("n", 5) == 5
    assert r.decr("n") == 4
    assert r.incrbyfloat("f", 0.5) == 0.5
    assert r.mset({"a": 1, "b": 2, "c": b"\x00\xff"}) is True
    assert r.mget("a", "b", "none", "c") == [b"1", b"2", None, b"\x00\xff"]
    assert r.msetnx({"a": 9, "z": 9}) is False
    assert r.getdel("a") == b"1"
    assert r.getex("b", ex=100) == b"2"
    assert 0 < r.ttl("b") <= 100
    assert r.strlen("c") == 2
    r.mset({"l1": "ohmytext", "l2": "mynewtext"})
    assert r.lcs("l1", "l2") == b"mytext"
    assert r.lcs("l1", "l2", len=True) == 6


def test_pubsub(r):
    listeners = [r.pubsub() for _ in range(8)]
    for p in listeners:
        p.subscribe("news")
        p.psubscribe("ne*")
        assert [p.get_message(timeout=5)["type"] for _ in range(2)] == ["subscribe", "psubscribe"]
    assert r.publish("news", "hello") == 16
    assert r.pubsub_numsub("news", "none") == [(b"news", 8), (b"none", 0)]
    assert r.pubsub_channels() == [b"news"] and r.pubsub_numpat() == 1
    for p in listeners:
        assert p.get_message(timeout=5) == {"type": "message", "pattern": None, "channel": b"news", "data": b"hello"}
        assert p.get_message(timeout=5) == {"type": "pmessage", "pattern": b"ne*", "channel": b"news", "data": b"hello"}
    # Many publishers at once; each one's messages come in order.
    def publish(name):
        with redis.Redis(host="127.0.0.1", port=PORT) as own:
            for i in range(200):
                own.publish("news", f"{name}:{i}")

    threads = [threading.Thread(target=publish, args=(name,)) for name in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for p in listeners:
        p.punsubscribe("ne*")
        last, count = {}, 0
        while count < 800:
            message = p.get_message(timeout=5)
            if message["type"] == "message":
                name, i = map(int, message["data"].split(b":"))
                assert i == last.get(name, -1) + 1
                last[name] = i
                count += 1
        p.close()


def test_keyspace_events(r):
    r.config_set("notify-keyspace-events", "KEA")
    p = r.pubsub()
    p.psubscribe("__keyevent@*")
    assert p.get_message(timeout=5)["type"] == "psubscribe"
    for i in range(20):
        r.set(f"key:{i}", i, px=30)
    wanted = {(event, f"key:{i}") for event in ("set", "expire", "expired") for i in range(20)}
    while wanted:
        message = p.get_message(timeout=5)
        wanted.remove((message["channel"].split(b":")[1].decode(), message["data"].decode()))
    r.config_set("notify-keyspace-events", "")
    p.close()


def test_keys(r):
    r.mset({f"key:{i}": i for i in range(300)})
    assert r.dbsize() == 300
    assert set(r.scan_iter(match="key:*", count=7)) == {f"key:{i}".encode() for i in range(300)}
    assert set(r.scan_iter(match="key:1?", count=50)) == {f"key:1{i}".encode() for i in range(10)}
    assert len(r.keys("key:2??")) == 100
    assert r.exists("key:1", "key:2", "none") == 2
    assert r.touch("key:1", "none") == 1
    assert r.delete("key:1", "key:2", "none") == 2
    assert r.unlink("key:3") == 1
    assert r.rename("key:4", "key:1") is True
    assert r.renamenx("key:5", "key:1") is False
    assert r.copy("key:1", "key:2") is True
    assert r.get("key:2") == b"4"
    assert r.type("key:2") == b"string" and r.type("none") == b"none"
    assert r.expire("key:2", 100) is True
    assert r.persist("key:2") is True
    assert r.pexpire("key:2", 100000, nx=True) is True
    assert r.expireat("key:2", 33177117420) is True
    assert r.expiretime("key:2") == 33177117420
    assert r.randomkey().startswith(b"key:")
    assert r.object("encoding", "key:2") == b"int"
    assert r.move("key:2", 1) is True
    assert r.flushall() is True
    assert r.dbsize() == 0


def test_errors(r):
    r.set("k", "text")
    for wrong in (lambda: r.incr("k"), lambda: r.execute_command("SET", "k"), lambda: r.execute_command("NOSUCH")):
        try:
            wrong()
        except redis.ResponseError as error:
            assert str(error)
        else:
            raise AssertionError("an error was expected")
    assert r.ping() is True


def test_pipeline(r):
    with r.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.set(f"p{i}", i)
            pipe.incr(f"p{i}")
        replies = pipe.execute()
    assert replies == [x for i in range(1000) for x in (True, i + 1)]
    with r.pipeline(transaction=False) as pipe:
        pipe.set("k", "text").incr("k").get("k")
        first, second, third = pipe.execute(raise_on_error=False)
    assert first is True and isinstance(second, redis.ResponseError) and third == b"text"


def test_multi(r):
    with r.pipeline() as pipe:
        pipe.set("a", 1).incr("a").mget("a", "none").mset({"x": 1, "y": 2, "z": 3})
        assert pipe.execute() == [True, 2, [b"2", None], True]
    with r.pipeline() as pipe:
        pipe.watch("a")
        value = int(pipe.get("a"))
        r.set("a", 100)
        pipe.multi()
        pipe.set("a", value + 1)
        try:
            pipe.execute()
        except redis.WatchError:
            pass
        else:
            raise AssertionError("WATCH did not notice")
    assert r.get("a") == b"100"

    def raise_by_one(pipe):
        value = int(pipe.get("a"))
        pipe.multi()
        pipe.set("a", value + 1)

    threads = [
        threading.Thread(target=lambda: [r.transaction(raise_by_one, "a") for _ in range(20)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert r.get("a") == b"180"


def test_databases(r):
    with redis.Redis(host="127.0.0.1", port=PORT, db=3) as other:
        other.set("only here", 1)
        assert r.get("only here") is None
        assert other.dbsize() == 1
        assert r.swapdb(0, 3) is True
        assert r.get("only here") == b"1"


def test_connection(r):
    assert r.client_setname("tester") is True
    assert r.client_getname() in (b"tester", "tester")
    assert any(client["name"] == "tester" for client in r.client_list())
    assert r.client_info()["db"] in (0, "0")
    assert r.echo("hello") == b"hello"


def test_many_threads(r):
    def work(t):
        for i in range(200):
            r.set(f"t{t}:{i}", i)
            assert r.get(f"t{t}:{i}") == str(i).encode()
        results.append(t)

    results = []
    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert r.dbsize() == 1600


def test_async(r):
    async def run():
        async with redis.asyncio.Redis(host="127.0.0.1", port=PORT, protocol=3, decode_responses=True) as client:
            await asyncio.gather(*(client.set(f"async:{i}", i) for i in range(100)))
            assert await client.get("async:99") == "99"
            async with client.pipeline(transaction=True) as pipe:
                assert await pipe.incr("async:1").incr("async:2").execute() == [2, 3]
            found = {key async for key in client.scan_iter(match="async:*")}
            assert len(found) == 100

    asyncio.run(run())


def test_scripts_and_functions(client):
    script = client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    assert script(keys=["count"], args=[2]) == 2
    client.script_flush()
    # The helper notices NOSCRIPT and loads the script again.
    assert script(keys=["count"], args=[3]) == 5
    with client.pipeline() as pipe:
        script(keys=["count"], args=[1], client=pipe)
        assert pipe.execute() == [6]
    code = "#!lua name=lib\nredis.register_function('twice', function(keys, args) return 2 * args[1] end)"
    assert client.function_load(code, replace=True) == b"lib"
    assert client.fcall("twice", 0, 21) == 42
    client.function_flush()


def test_unusual_pipelines(r):
    # An error of one command, in both kinds.
    for transaction in (True, False):
        with r.pipeline(transaction=transaction) as pipe:
            pipe.set("k", "text").lpush("k", 1).get("k")
            assert "WRONGTYPE" in raises(redis.ResponseError, pipe.execute)
        assert r.get("k") == b"text"
    # One that cannot be queued ends the transaction.
    with r.pipeline() as pipe:
        pipe.set("k", "other").execute_command("NOSUCH")
        raises(redis.ResponseError, pipe.execute)
    assert r.get("k") == b"text"
    # Many keys, long values, and replies of every shape in one.
    with r.pipeline(transaction=True) as pipe:
        for i in range(300):
            pipe.hset(f"h{i}", mapping={"f": i, "g": "x" * 1000})
            pipe.hgetall(f"h{i}")
            pipe.zadd(f"z{i}", {"a": 1.5, "b": 2})
            pipe.zrange(f"z{i}", 0, -1, withscores=True)
        replies = pipe.execute()
    for i in range(300):
        assert replies[4 * i + 1] == {b"f": str(i).encode(), b"g": b"x" * 1000}
        assert [tuple(pair) for pair in replies[4 * i + 3]] == [(b"a", 1.5), (b"b", 2.0)]


def test_shapes(r):
    """What redis-py makes of replies whose shape differs between the protocols."""
    r.zadd("z", {"a": 1, "b": 2.5})
    assert r.zscore("z", "b") == 2.5 and r.zmscore("z", ["a", "none"]) == [1.0, None]
    assert r.zincrby("z", 0.5, "a") == 1.5
    # One alone is a pair with RESP3, and a list of one pair with RESP2.
    assert r.zpopmin("z") in ([(b"a", 1.5)], [b"a", 1.5])
    assert list(r.zrank("z", "b", withscore=True)) == [0, 2.5]
    r.geoadd("g", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"))
    assert abs(r.geodist("g", "Palermo", "Catania", unit="km") - 166.27) < 0.01
    found = r.geosearch("g", longitude=15, latitude=37, radius=200, unit="km", withdist=True, withcoord=True, sort="ASC")
    assert found[0][0] == b"Catania" and abs(found[0][1] - 56.44) < 0.01
    assert abs(found[0][2][0] - 15.087269) < 1e-4
    r.hset("h", mapping={"f": 1, "g": 2})
    assert r.hrandfield("h", 2, withvalues=True) and r.hscan("h")[1] == {b"f": b"1", b"g": b"2"}
    assert list(r.hexpire("h", 100, "f", "none")) == [1, -2] and 0 < r.httl("h", "f")[0] <= 100
    r.sadd("s", 1, 2, 3)
    assert set(r.smembers("s")) == {b"1", b"2", b"3"} and list(r.smismember("s", [1, 9])) in ([1, 0], [True, False])
    r.rpush("l", *range(10))
    assert r.lmpop(2, "none", "l", direction="LEFT", count=2) == [b"l", [b"0", b"1"]]
    assert r.lpos("l", 5) == 3 and r.lmove("l", "m", "LEFT", "RIGHT") == b"2"
    assert r.bitfield("bits").set("u8", 0, 255).get("u4", 0).execute() == [0, 15]
    assert r.object("refcount", "l") >= 1 and r.object("encoding", "h") in (b"listpack", b"listpackex", b"hashtable")
    assert r.memory_usage("l") > 0
    info = r.info()
    for field in ("redis_version", "uptime_in_seconds", "connected_clients", "used_memory", "role", "tcp_port"):
        assert field in info, field
    assert info["db0"]["keys"] == r.dbsize()
    assert r.info("keyspace")["db0"]["keys"] == r.dbsize() and r.info("commandstats")["cmdstat_zadd"]["calls"] >= 1
    assert r.config_get("maxmemory*")["maxmemory"] == "0"
    assert len(r.command()) > 200 and r.command_count() > 200
    assert r.command_getkeys("MSET", "a", 1, "b", 2) in ([b"a", b"b"], ["a", "b"])
    assert r.time()[0] > 1_600_000_000 and r.lastsave()
    assert r.slowlog_get() is not None and r.slowlog_reset()
    assert r.acl_whoami() in (b"default", "default") and r.acl_getuser("default")["flags"]
    assert r.dump("l") and r.restore("copy", 0, r.dump("l")) and r.llen("copy") == r.llen("l")
    assert r.sort("m", alpha=True) == [b"2"]
    assert r.client_id() > 0 and r.client_setinfo("LIB-NAME", "tested") and r.client_info()["lib-name"] == "tested"
    assert r.client_no_evict("ON") and r.client_no_touch("ON")


def test_streams_and_groups(r):
    ids = [r.xadd("s", {"n": i}) for i in range(20)]
    assert r.xlen("s") == 20 and r.xrange("s", count=1) == [(ids[0], {b"n": b"0"})]
    assert r.xgroup_create("s", "g", id="0") is True
    assert "BUSYGROUP" in raises(redis.ResponseError, lambda: r.xgroup_create("s", "g"))

    def entries(reply):
        # A list of pairs, or a dictionary of lists of lists.
        if isinstance(reply, dict):
            return [entry for page in reply[b"s"] for entry in page]
        return reply[0][1]

    one = entries(r.xreadgroup("g", "one", {"s": ">"}, count=5))
    two = entries(r.xreadgroup("g", "two", {"s": ">"}, count=5))
    assert [entry[0] for entry in one] == ids[:5] and [entry[0] for entry in two] == ids[5:10]
    assert r.xack("s", "g", *ids[:3]) == 3
    pending = r.xpending("s", "g")
    assert pending["pending"] == 7 and pending["min"] == ids[3]
    assert sorted((c["name"], c["pending"]) for c in pending["consumers"]) == [(b"one", 2), (b"two", 5)]
    assert [p["message_id"] for p in r.xpending_range("s", "g", "-", "+", 10)] == ids[3:10]
    assert [entry[0] for entry in r.xclaim("s", "g", "three", 0, [ids[3]])] == [ids[3]]
    cursor, claimed, gone = r.xautoclaim("s", "g", "three", 0, count=100)
    assert cursor == b"0-0" and [entry[0] for entry in claimed] == ids[3:10] and gone == []
    assert [(g["name"], g["pending"], g["lag"]) for g in r.xinfo_groups("s")] == [(b"g", 7, 10)]
    assert {c["name"] for c in r.xinfo_consumers("s", "g")} == {b"one", b"two", b"three"}
    assert r.xinfo_stream("s")["length"] == 20 and r.xinfo_stream("s", full=True)["entries"]
    assert r.xdel("s", ids[0]) == 1 and r.xtrim("s", maxlen=5, approximate=False) == 14

    # Several consumers that wait take every entry once.
    taken = []

    def consume(number):
        with connect() as own:
            while True:
                reply = own.xreadgroup("work", f"c{number}", {"s": ">"}, count=3, block=10000)
                for id, fields in entries(reply):
                    if fields == {b"end": b"1"}:
                        own.xack("s", "work", id)
                        return
                    taken.append(id)
                    own.xack("s", "work", id)

    r.xgroup_create("s", "work", id="$")
    wanted = []

    def produce(_):
        with connect() as own:
            wanted.extend(own.xadd("s", {"n": i}) for i in range(200))

    def both(number):
        if number < 4:
            consume(number)
        else:
            produce(number)
            # One entry a time may wake several; each must see an end of its own.
            time.sleep(0.2)
            with connect() as own:
                for _ in range(4):
                    own.xadd("s", {"end": 1})
                    time.sleep(0.05)

    in_threads(5, both)
    assert sorted(taken) == sorted(wanted) and r.xpending("s", "work")["pending"] == 0


def test_blocking(r):
    assert r.blpop(["none"], timeout=0.05) is None
    got = []

    def work(number):
        with connect() as own:
            while True:
                key, value = own.blpop([f"queue:{i}" for i in range(4)], timeout=20)
                if value == b"end":
                    return
                got.append(int(value))

    def feed(_):
        with connect() as own:
            for i in range(400):
                own.rpush(f"queue:{i % 4}", i)
            for _ in range(4):
                own.rpush("queue:3", "end")

    in_threads(5, lambda number: work(number) if number < 4 else feed(number))
    assert sorted(got) == list(range(400))
    waiting = threading.Thread(target=lambda: got.append(connect().blmove("from", "to", 20, "LEFT", "RIGHT")))
    waiting.start()
    r.rpush("from", "x")
    waiting.join()
    assert got[-1] == b"x" and r.lrange("to", 0, -1) == [b"x"]
    r.zadd("z", {"a": 1})
    assert tuple(r.bzpopmin(["none", "z"], timeout=5)) == (b"z", b"a", 1.0)
    assert r.blmpop(0.05, 1, "none", direction="LEFT") is None
    # Who waits can be told to go on, however soon. Without that it would wait for ever.
    with connect(single_connection_client=True) as own:
        id = own.client_id()
        for _ in range(10):
            got.append("waits")
            waiting = threading.Thread(target=lambda: got.append(own.blpop(["none"], timeout=0)))
            waiting.start()
            while not r.client_unblock(id):
                time.sleep(0.001)
            waiting.join()
            assert got[-1] is None


def test_locks(r):
    first, second = r.lock("lock", timeout=20), r.lock("lock", timeout=20)
    assert first.acquire() and first.owned() and first.locked()
    assert second.acquire(blocking=False) is False
    assert first.extend(10) and 20_000 < r.pttl("lock") <= 30_000
    assert first.extend(10, replace_ttl=True) and first.reacquire()
    raises(redis.exceptions.LockError, second.release)
    first.release()
    raises(redis.exceptions.LockError, first.release)
    assert second.acquire(blocking=False) is True
    r.delete("lock")
    raises(redis.exceptions.LockNotOwnedError, second.release)
    # It excludes: a counter that is read and written back loses nothing.
    r.set("count", 0)

    def work(number):
        with connect() as own:
            for _ in range(15):
                with own.lock("lock", timeout=20, sleep=0.002):
                    own.set("count", int(own.get("count")) + 1)

    in_threads(4, work)
    assert r.get("count") == b"60" and r.exists("lock") == 0


def test_scripts(r):
    script = r.register_script(
        """
        local sum = 0
        for _, key in ipairs(KEYS) do sum = sum + (redis.call('get', key) or 0) end
        redis.call('set', ARGV[1], sum)
        return {sum, redis.call('mget', unpack(KEYS)), ARGV[1], false}
        """
    )
    keys = [f"part:{i}" for i in range(30)]
    r.mset({key: i for i, key in enumerate(keys)})
    # The key that it writes is not declared.
    assert script(keys=keys, args=["sum"]) == [435, [str(i).encode() for i in range(30)], b"sum", None]
    assert r.get("sum") == b"435"
    with r.pipeline(transaction=False) as pipe:
        for i in range(10):
            script(keys=keys[:2], args=[f"sum:{i}"], client=pipe)
        assert [reply[0] for reply in pipe.execute()] == [1] * 10
    assert r.mget([f"sum:{i}" for i in range(10)]) == [b"1"] * 10
    r.set("text", "x")
    assert "not an integer" in raises(redis.ResponseError, lambda: r.eval("return redis.call('incr', KEYS[1])", 1, "text"))
    raises(redis.exceptions.NoScriptError, lambda: r.evalsha("0" * 40, 0))
    sha = r.script_load("return 7")
    assert r.script_exists(sha, "0" * 40) == [True, False] and r.evalsha(sha, 0) == 7
    assert r.eval_ro("return redis.call('get', KEYS[1])", 1, "sum") == b"435"


def test_many_keys_by_scan(r):
    r.mset({f"scan:{i}": i for i in range(2000)})
    r.hset("hash", mapping={f"f{i}": i for i in range(1000)})
    r.sadd("set", *range(1000))
    r.zadd("zset", {f"m{i}": i for i in range(1000)})
    assert len(set(r.scan_iter(match="scan:*", count=100))) == 2000
    assert set(r.scan_iter(_type="hash")) == {b"hash"} and set(r.scan_iter(_type="zset")) == {b"zset"}
    assert len(dict(r.hscan_iter("hash"))) == 1000
    assert len(set(r.sscan_iter("set", match="1*", count=50))) == 111
    assert dict(r.zscan_iter("zset"))[b"m7"] == 7.0
    # What is there all the time is found while other keys come and go.
    found = set()
    for i, key in enumerate(r.scan_iter(match="scan:*", count=20)):
        found.add(key)
        r.set(f"more:{i}", i)
        if i % 2:
            r.delete(f"more:{i - 1}")
    assert len(found) == 2000


def test_caching_in_the_client(_):
    if PROTOCOL == 2:
        raises(redis.exceptions.RedisError, lambda: connect(cache_config=CacheConfig()))
        return
    with connect(cache_config=CacheConfig(max_size=1000), decode_responses=True) as caching, connect() as writer:
        cache = caching.get_cache()
        writer.mset({f"cached:{i}": 1 for i in range(50)})
        for i in range(50):
            assert caching.get(f"cached:{i}") == "1"
        assert cache.size == 50
        writer.mset({f"cached:{i}": 2 for i in range(50)})
        deadline = time.monotonic() + 20
        while any(caching.get(f"cached:{i}") != "2" for i in range(50)):
            assert time.monotonic() < deadline, "the client was not told of the change"
        assert caching.mget("cached:1", "cached:2") == ["2", "2"]
        writer.flushall()
        while caching.get("cached:1") is not None:
            assert time.monotonic() < deadline, "the client was not told of the flush"


def test_connections(r):
    # Names of libraries, names of clients, databases, and retries on connections that were cut.
    assert any(c["lib-name"].startswith("redis-py") for c in r.client_list())
    with connect(client_name="named", db=5) as own:
        assert own.client_info()["name"] == "named" and own.client_info()["db"] in (5, "5")
        assert own.client_info()["lib-name"].startswith("redis-py")
    with connect(retry=redis.retry.Retry(redis.backoff.ExponentialBackoff(cap=0.1, base=0.01), 5)) as own:
        for _ in range(5):
            id = own.client_id()
            assert r.client_kill_filter(_id=id) == 1
            assert own.client_id() != id, "it came back with another connection"
    with connect(health_check_interval=1) as own:
        assert own.ping() is True
    pool = redis.BlockingConnectionPool(host="127.0.0.1", port=PORT, protocol=PROTOCOL, max_connections=3, timeout=20)
    in_threads(10, lambda number: [redis.Redis(connection_pool=pool).incr("shared") for _ in range(50)])
    assert r.get("shared") == b"500"
    pool.disconnect()
    # Users, and what they may do.
    r.acl_setuser("limited", enabled=True, passwords=["+secret"], keys=["mine:*"], commands=["+get", "+set", "+ping"])
    with connect(username="limited", password="secret") as own:
        assert own.set("mine:1", 1) is True
        raises(redis.exceptions.NoPermissionError, lambda: own.get("other"))
        raises(redis.exceptions.NoPermissionError, lambda: own.flushall())
    once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    wrong = {"username": "limited", "password": "wrong", "retry": once}
    raises(redis.exceptions.AuthenticationError, lambda: connect(**wrong).ping())
    r.acl_deluser("limited")


def test_tls(r):
    if TLS_PORT is None:
        return
    files = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "client.crt", "ssl_keyfile": "client.key"}
    files = {name: os.path.join(CERTIFICATES, file) for name, file in files.items()}
    with connect(port=int(TLS_PORT), ssl=True, **files) as own:
        value = os.urandom(3_000_000)
        assert own.set("big", value) and own.get("big") == value and r.strlen("big") == 3_000_000
        with own.pipeline() as pipe:
            for i in range(1000):
                pipe.set(f"tls:{i}", i).get(f"tls:{i}")
            assert pipe.execute()[1::2] == [str(i).encode() for i in range(1000)]
        listener = own.pubsub()
        listener.subscribe("c")
        assert listener.get_message(timeout=20)["type"] == "subscribe"
        r.publish("c", "through plain text")
        assert listener.get_message(timeout=20)["data"] == b"through plain text"
        listener.close()
    once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    for authority in ({"ssl_ca_certs": files["ssl_ca_certs"]}, {}):
        stranger = {"port": int(TLS_PORT), "ssl": True, "retry": once, **authority}
        raises(redis.exceptions.ConnectionError, lambda: connect(**stranger).ping())

    async def run():
        async with connect_async(port=int(TLS_PORT), ssl=True, **files) as own:
            assert await own.get("tls:7") == b"7"

    asyncio.run(run())


def test_unix_socket(r):
    if UNIX_SOCKET is None:
        return
    with redis.Redis(unix_socket_path=UNIX_SOCKET, protocol=PROTOCOL, db=1) as own:
        assert own.set("k", "v") and own.get("k") == b"v" and r.get("k") is None
        assert UNIX_SOCKET in own.client_info()["addr"]

    async def run():
        async with redis.asyncio.Redis(unix_socket_path=UNIX_SOCKET, protocol=PROTOCOL) as own:
            assert await own.incr("n") == 1

    asyncio.run(run())


def test_async_in_depth(r):
    async def run():
        client = connect_async(decode_responses=True)
        # Pub/sub beside commands.
        async with client.pubsub() as listener:
            await listener.subscribe("a")
            await listener.psubscribe("b*")

            async def hear():
                heard = []
                async for message in listener.listen():
                    if message["type"] in ("message", "pmessage"):
                        heard.append(message["data"])
                    if len(heard) == 200:
                        return heard

            task = asyncio.create_task(hear())
            while (await client.pubsub_numsub("a"))[0][1] != 1 or await client.pubsub_numpat() != 1:
                await asyncio.sleep(0.01)
            for i in range(100):
                assert await client.publish("a", f"a{i}") == 1
                assert await client.publish("bc", f"b{i}") == 1
            heard = await asyncio.wait_for(task, 30)
            assert heard == [f"{which}{i}" for i in range(100) for which in "ab"]
        # Many tasks over many connections.
        async def raise_by_one(i):
            async with client.pipeline(transaction=True) as pipe:
                while True:
                    try:
                        await pipe.watch("n")
                        n = int(await pipe.get("n") or 0)
                        pipe.multi()
                        pipe.set("n", n + 1)
                        return await pipe.execute()
                    except redis.WatchError:
                        pass

        await asyncio.gather(*(raise_by_one(i) for i in range(20)))
        assert await client.get("n") == "20"
        # Locks, scripts, blocking pops.
        async def locked(i):
            async with client.lock("lock", timeout=20, sleep=0.002):
                value = int(await client.get("m") or 0)
                await client.set("m", value + 1)

        await asyncio.gather(*(locked(i) for i in range(20)))
        assert await client.get("m") == "20"
        script = client.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
        assert await asyncio.gather(*(script(keys=[f"k{i}"], args=[i]) for i in range(50))) == list(range(50))
        pops = [asyncio.create_task(client.blpop([f"q{i}"], timeout=20)) for i in range(20)]
        while (await client.info("clients"))["blocked_clients"] < 20:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(client.rpush(f"q{i}", i) for i in range(20)))
        assert [list(pair) for pair in await asyncio.gather(*pops)] == [[f"q{i}", str(i)] for i in range(20)]
        # One that is given up leaves a connection that is not mistaken for a fresh one.
        pop = asyncio.create_task(client.blpop(["none"], timeout=20))
        await asyncio.sleep(0.05)
        pop.cancel()
        await asyncio.gather(pop, return_exceptions=True)
        assert await asyncio.gather(*(client.echo(str(i)) for i in range(50))) == [str(i) for i in range(50)]
        await client.aclose()

    asyncio.run(run())


def test_monitor(r):
    with connect() as own, own.monitor() as monitor:
        r.set("seen", "value with \x01")
        commands = iter(monitor.listen())
        while True:
            seen = next(commands)
            if "seen" in seen["command"]:
                break
        assert seen["command"].startswith("SET seen") and seen["client_type"] == "tcp"


def fresh():
    client = connect()
    client.flushall()
    return client


def main():
    global PROTOCOL
    wanted = os.environ.get("RINGSHARD_CLIENT_TEST", "")
    tests = [(name, test) for name, test in tests_of(globals()) if wanted in name]
    counts = []
    for PROTOCOL in (2, 3):
        counts.append(run(tests, fresh, f" with RESP{PROTOCOL}"))
    return report(*map(sum, zip(*counts)))


sys.exit(main())
