"""redis-py, unmodified, against a running server: `redis_py.py PORT`.

Its parts are functions named `test_*`; each gets a client on an empty database. The last line counts them.
"""

import asyncio
import sys
import threading

import redis
import redis.asyncio

PORT = int(sys.argv[1])


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


def main():
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    passed = failed = 0
    for protocol in (2, 3):
        for name, test in tests:
            with redis.Redis(host="127.0.0.1", port=PORT, protocol=protocol, socket_timeout=30) as client:
                client.flushall()
                try:
                    test(client)
                    passed += 1
                    print(f"{name} with RESP{protocol}: ok")
                except Exception as error:  # the next one is worth running all the same
                    failed += 1
                    print(f"{name} with RESP{protocol}: {type(error).__name__}: {error}")
                    import traceback

                    traceback.print_exc()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
