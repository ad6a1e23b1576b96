//! Scripts through the server in memory: values, errors, the sandbox, and keys that no one declared.

use crate::testing::{Check, World};

#[test]
fn values_go_both_ways() {
    let mut t = Check::new();
    t.check("EVAL 'return 1' 0", "1")
        .check("EVAL 'return \"x\"' 0", "\"x\"")
        .check("EVAL 'return {1,2,{3,\"four\"}}' 0", "[1 2 [3 \"four\"]]")
        .check("EVAL 'return {1,nil,3}' 0", "[1]")
        .check("EVAL 'return true' 0", "1")
        .check("EVAL 'return false' 0", "nil")
        .check("EVAL 'return 3.99' 0", "3")
        .check("EVAL 'return {ok=\"fine\"}' 0", "fine")
        .check("EVAL 'return {KEYS[1],KEYS[2],ARGV[1]}' 2 a b c", "[\"a\" \"b\" \"c\"]")
        .check("EVAL 'return redis.call(\"set\",KEYS[1],ARGV[1])' 1 k v", "OK")
        .check("EVAL 'return redis.call(\"get\",KEYS[1])' 1 k", "\"v\"")
        .check("EVAL 'return redis.call(\"get\",KEYS[1]) == false' 1 none", "1")
        .check("EVAL 'return redis.call(\"incr\",KEYS[1])' 1 n", "1")
        .check("EVAL 'return redis.call(\"ping\").ok' 0", "\"PONG\"")
        .check("EVAL 'redis.call(\"select\", 3) return redis.call(\"exists\", KEYS[1])' 1 k", "0")
        .check("GET k", "\"v\"")
        .check("EVAL 'return redis.sha1hex(\"\")' 0", "\"da39a3ee5e6b4b0d3255bfef95601890afd80709\"")
        .check("EVAL 'return redis.status_reply(\"HI\")' 0", "HI");
}

#[test]
fn the_third_protocol_keeps_its_types() {
    let mut t = Check::new();
    t.check("HSET h f v", "1");
    t.types("EVAL 'redis.setresp(3) return redis.call(\"hgetall\",KEYS[1])' 1 h", "[\"f\" \"v\"]", "{\"f\": \"v\"}");
    t.types("EVAL 'return {double=1.5}' 0", "\"1.5\"", ",1.5");
    t.types("EVAL 'redis.setresp(3) return true' 0", "1", "#true");
    t.check("EVAL 'return redis.call(\"hgetall\",KEYS[1])' 1 h", "[\"f\" \"v\"]");
}

#[test]
fn errors_say_where_they_were_raised() {
    let mut t = Check::new();
    let sha = |script: &str| String::from_utf8(super::store::sha1hex(script.as_bytes()).to_vec()).unwrap();
    let mut fails = |script: &str, text: &str| {
        let tail = format!(" script: {}, on @user_script:1.", sha(script));
        t.check(&format!("EVAL '{script}' 0"), &format!("{text}{tail}"));
    };
    fails("error(\"x\")", "-ERR user_script:1: x");
    fails("return nosuch", "-ERR user_script:1: Script attempted to access nonexistent global variable 'nosuch'");
    fails("redis.call(\"nosuch\")", "-ERR Unknown Redis command called from script");
    fails("redis.call(\"get\")", "-ERR Wrong number of args calling Redis command from script");
    fails("redis.call(\"multi\")", "-ERR This Redis command is not allowed from script");
    fails("redis.call(\"incrby\",\"n\",\"x\")", "-ERR value is not an integer or out of range");
    fails("redis.call(\"set\",{},1)", "-ERR Lua redis lib command arguments must be strings or integers");
    fails("error({err=\"MY own\"})", "-MY own");
    t.check("EVAL 'return redis.pcall(\"incrby\",\"n\",\"x\")' 0", "-ERR value is not an integer or out of range")
        .check("EVAL 'return {err=\"MY own\"}' 0", "-MY own")
        .check("EVAL 'return redis.error_reply(\"-CODE text\")' 0", "-CODE text")
        .check("EVAL 'return pcall(redis.call, \"nosuch\")' 0", "nil")
        .check("EVAL 'return 1' -1", "-ERR Number of keys can't be negative")
        .check("EVAL 'return 1' 2 a", "-ERR Number of keys can't be greater than number of args")
        .check("EVAL 'return 1' x", "-ERR value is not an integer or out of range")
        .check("EVAL 'x x' 0", "-ERR Error compiling script (new function): user_script:1: '=' expected near 'x'")
        .check("EVALSHA 0123 0", "-NOSCRIPT No matching script. Please use EVAL.")
        .check("EVAL_RO 'return redis.call(\"del\",KEYS[1])' 1 k", &{
            let script = "return redis.call(\"del\",KEYS[1])";
            let sha = sha(script);
            format!("-ERR Write commands are not allowed from read-only scripts. script: {sha}, on @user_script:1.")
        });
}

#[test]
fn lua_is_not_led_past_its_stacks() {
    let mut t = Check::new();
    // Each of these ended the process with Lua as it is.
    for (script, error) in [
        ("return string.match(('a'):rep(1e6), ('a?'):rep(1e6) .. 'b')", "pattern too complex"),
        ("return ('a'):rep(1e5):find(('a*'):rep(1e5) .. 'b')", "pattern too complex"),
        ("return ('a'):gsub(('('):rep(1e6), '')", "pattern too complex"),
        ("for a in ('a'):gmatch(('a-'):rep(1e6)) do end", "pattern too complex"),
        ("return {unpack({}, -1, 2147483647)}", "too many results to unpack"),
        ("return {unpack({}, 0, 2147483647)}", "too many results to unpack"),
        ("return {unpack({}, -2147483648, 2147483647)}", "too many results to unpack"),
        ("return {unpack({}, 1, 1e8)}", "too many results to unpack"),
        ("return {unpack({}, -9e18, 9e18)}", "too many results to unpack"),
        ("local function f() return tostring(setmetatable({}, {__tostring = f})) end return f()", "C stack overflow"),
        ("local t = {} t[1] = t return cjson.encode(t)", "excessive nesting"),
        ("return cjson.decode(('['):rep(1e6))", "too many nested data structures"),
        ("return cmsgpack.unpack(string.char(145):rep(1e6))", "Bad data format"),
    ] {
        t.look(&format!("EVAL \"{script}\" 0"), |reply| {
            assert!(reply.text().contains(error), "{script}: {reply:?}");
        });
    }
    t.check("EVAL \"return {unpack({1, 2, 3})}\" 0", "[1 2 3]")
        .check("EVAL \"return {unpack({1, 2, 3}, 2)}\" 0", "[2 3]")
        .check("EVAL \"return {unpack({1, 2, 3}, 2, 2)}\" 0", "[2]")
        .check("EVAL \"return {unpack({1, 2, 3}, 3, 2)}\" 0", "[]")
        .check("EVAL \"return {('key=value'):match('(%w+)=(%w+)')}\" 0", "[\"key\" \"value\"]")
        .check("EVAL \"return {('a.b'):find('.', 1, true)}\" 0", "[2 2]")
        .check("EVAL \"local n = 0 for w in ('a b'):gmatch('%a') do n = n + 1 end return n\" 0", "2");
    t.look("EVAL \"return ('a'):find()\" 0", |reply| {
        assert!(reply.text().contains("bad argument #1 to 'find' (string expected, got no value)"), "{reply:?}");
    });
}

#[test]
fn nothing_leads_out_of_the_sandbox() {
    let mut t = Check::new();
    for script in [
        "_G.x = 1",
        "x = 1",
        "redis.call = 1",
        "rawset(redis, \"a\", 1)",
        "rawset(_G, \"a\", 1)",
        "setmetatable(_G, {})",
        "getmetatable(_G).__index = 1",
        "getmetatable(\"\").__index = 1",
        "getmetatable(\"\").__index.rep = 1",
        "string.rep = 1",
        "table.insert(redis, 1)",
        "getfenv(0).x = 1",
        "getfenv().redis = 1",
    ] {
        let script = script.replace('"', "\\\"");
        t.look(&format!("EVAL \"{script}\" 0"), |reply| {
            assert!(reply.text().contains("Attempt to modify a readonly table"), "{script}: {reply:?}");
        });
    }
    for script in ["print", "dofile", "loadfile", "require", "module", "debug", "io", "newproxy", "package"] {
        t.look(&format!("EVAL 'return {script}' 0"), |reply| {
            assert!(reply.text().contains("nonexistent global variable"), "{script}: {reply:?}");
        });
    }
    // Nor through coroutines, environments of functions in C, or metatables.
    for script in [
        "coroutine.wrap(function() getfenv(0).x = 1 end)()",
        "getfenv(redis.call).x = 1",
        "getfenv(pcall).x = 1",
        "for k, v in pairs(_G) do if type(v) == \"table\" then rawset(v, \"z\", 1) end end",
        "local k, v = next(_G) while k do if type(v) == \"table\" then v.z = 1 end k, v = next(_G, k) end",
        "rawget(_G, \"string\").rep = 1",
        "setmetatable(getmetatable(\"\"), {})",
        "setmetatable(KEYS, {__index = function() return getfenv(0) end}) KEYS[1].redis = 1",
    ] {
        let script = script.replace('"', "\\\"");
        t.look(&format!("EVAL \"{script}\" 0"), |reply| {
            assert!(reply.text().contains("Attempt to modify a readonly table"), "{script}: {reply:?}");
        });
    }
    t.look("EVAL 'return setfenv(redis.call, {})' 0", |reply| {
        assert!(reply.text().contains("cannot change environment"), "{reply:?}");
    });
    for table in ["redis", "string", "cjson"] {
        t.check(&format!("EVAL 'return getmetatable({table})' 0"), "nil");
    }
    // A reply is one reply.
    for script in ["return {err = 'a\\r\\n+OK'}", "return {ok = 'a\\r\\n+OK'}", "error('a\\r\\n+OK')"] {
        t.look(&format!("EVAL \"{}\" 0", script.replace('\\', "\\\\")), |reply| {
            assert!(!reply.text().contains('\n'), "{script}: {reply:?}")
        });
    }
    t.check("EVAL 'local n = {} for k in pairs(os) do n[#n+1] = k end return n' 0", "[\"clock\"]")
        .check("EVAL 'return {loadstring(string.dump(function() end))}' 0", "[]")
        .check("EVAL 'local d = string.dump(function() end) local n = 0 return {load(function() n = n + 1 if n == 1 then return d end end)}' 0", "[]")
        .check("EVAL 'return load(function() return nil end)()' 0", "nil")
        .check("EVAL 'return loadstring(\"return 7\")()' 0", "7")
        .check("EVAL 'return next(redis) ~= nil' 0", "1")
        .check("EVAL 'return rawget(redis, \"LOG_WARNING\")' 0", "3")
        .check("EVAL 'return (\"ab\"):rep(2)' 0", "\"abab\"");
    // What one script changes of its own surroundings is no other's.
    t.check("EVAL 'setfenv(0, {}) setfenv(1, {}) return 1' 0", "1")
        .check("EVAL 'return redis.call(\"ping\")' 0", "PONG")
        .check("EVAL 'setfenv(0, {}) setfenv(1, {}) return 1' 0", "1");
}

#[test]
fn sizes_and_depths_lead_the_libraries_nowhere() {
    let mut t = Check::new();
    for (script, error) in [
        ("return struct.pack('i1000000000', 1)", "larger than limit of 32"),
        ("return struct.size('i33')", "larger than limit of 32"),
        ("return struct.size('c99999999999999999999')", "integral size overflow"),
        ("return struct.unpack('c2147483647', 'abc')", "data string too short"),
        ("return struct.unpack('c0', 'abc')", "format 'c0' needs a previous size"),
        ("return struct.unpack('I4c0', struct.pack('I4', 4294967295) .. 'abc')", "data string too short"),
        ("return struct.unpack('s', 'abc')", "unfinished string in data"),
        ("return struct.unpack('i4', 'abcd', -1)", "offset must be 1 or greater"),
        ("return struct.unpack('i4', 'abcd', 0)", "offset must be 1 or greater"),
        ("return struct.unpack('i4', 'abcd', 2147483648)", "data string too short"),
        ("return struct.unpack('i4', 'abcd', 1e300)", "data string too short"),
        ("return struct.pack('!1000000i', 1)", "is not a power of 2"),
        ("return struct.pack('!3i', 1)", "is not a power of 2"),
        ("return cmsgpack.unpack(string.char(0xdd, 0xff, 0xff, 0xff, 0xff))", "Missing bytes in input"),
        ("return cmsgpack.unpack(string.char(0xdf, 0xff, 0xff, 0xff, 0xff))", "Missing bytes in input"),
        ("return cmsgpack.unpack(string.char(0xdb, 0xff, 0xff, 0xff, 0xff) .. 'x')", "Missing bytes in input"),
        ("return cmsgpack.unpack(string.char(0xc6, 0xff, 0xff, 0xff, 0xff) .. 'x')", "Bad data format"),
        ("return cmsgpack.unpack_limit('x', -1, 0)", "Invalid request to unpack"),
        ("return cmsgpack.unpack_one('x', 100)", "Start offset 100 greater than input length 1"),
        (
            "cjson.encode_max_depth(2147483647) local t = {} for i = 1, 1e5 do t = {t} end return cjson.encode(t)",
            "excessive nesting",
        ),
        ("cjson.decode_max_depth(2147483647) return cjson.decode(('['):rep(1e6))", "too many nested data structures"),
        ("return cjson.decode(('{{x:'):gsub('x', ''):rep(1e5))", "Expected"),
        ("return cjson.encode(1/0)", "must not be NaN or Inf"),
        ("cjson.encode_number_precision(1000)", "expected integer between 1 and 14"),
        ("return string.format('%99999d', 1)", "width or precision too long"),
        ("return string.format('%' .. ('0'):rep(1000) .. 'd', 1)", "repeated flags"),
        ("return string.byte(('x'):rep(1e6), 1, -1)", "string slice too long"),
        ("local c c = coroutine.wrap(function() return c() end) return c()", "cannot resume running coroutine"),
        ("local function f() return coroutine.wrap(function() return f() end)() end return f()", "C stack overflow"),
        ("local function f() return (pcall(f)) and error('deep') or error('deep') end f()", "deep"),
        ("local function f() return f() + 1 end return f()", "stack overflow"),
        ("return load(('('):rep(1e5) .. '1' .. (')'):rep(1e5))", "function expected"),
        ("return loadstring(('('):rep(1e5))()", "attempt to call a nil value"),
        ("return loadstring('return ' .. ('{'):rep(1e5))()", "attempt to call a nil value"),
        ("return ('x'):gsub('x', ('%1'):rep(10) .. '%9')", "invalid capture index"),
    ] {
        t.look(&format!("EVAL \"{script}\" 0"), |reply| {
            assert!(reply.text().contains(error), "{script}: {reply:?}");
        });
    }
    // What is as deep as Redis lets it be, and what is packed no deeper.
    t.check("EVAL \"local t = {} for i = 1, 100 do t = {t} end return #cmsgpack.pack(t)\" 0", "17")
        .check("EVAL \"local t = {} t[1] = t return #cmsgpack.pack(t)\" 0", "17")
        .check("EVAL \"return {bit.tobit(0/0), bit.tohex(1, 2147483648)}\" 0", "[0 \"00000001\"]")
        .check(
            "EVAL \"return {pcall(coroutine.yield)}\" 0",
            "[nil \"attempt to yield across metamethod/C-call boundary\"]",
        );
}

#[test]
fn a_script_leaves_nothing_behind_for_the_next() {
    let mut t = Check::new();
    // Globals, whichever way they are to be made.
    for script in [
        "local f = function() leaked = 1 end setfenv(f, setmetatable({}, {__newindex = _G})) f()",
        "loadstring('leaked = 1')()",
        "setfenv(loadstring('leaked = 1'), _G)()",
        "local e = getfenv(0) e.leaked = 1",
        "rawset(getfenv(1), 'leaked', 1)",
        "table.insert(_G, 1)",
        "debug = 1",
        "for k in pairs(string) do string[k] = nil end",
        "table.sort(_G, function() return true end) _G[1] = 1",
        "next(_G, nil) _G._G = {}",
        "getmetatable('').__newindex = function() end",
        "getmetatable('').__metatable = nil",
        "setmetatable(string, {})",
        "setmetatable(redis, {__index = _G})",
        "rawset(string, 'rep', 1)",
        "rawset(getmetatable(''), '__index', {})",
    ] {
        t.look(&format!("EVAL \"{script}\" 0"), |reply| {
            let text = reply.text();
            assert!(text.contains("readonly table") || text.contains("nonexistent"), "{script}: {text}");
        });
        t.look("EVAL \"return leaked\" 0", |reply| {
            assert!(reply.text().contains("nonexistent global variable 'leaked'"), "{script}: {reply:?}");
        });
        t.check(
            "EVAL \"return {('ab'):rep(2), #cjson.encode({1}), type(redis.call), type(_G)}\" 0",
            "[\"abab\" 3 \"function\" \"table\"]",
        );
    }
    // KEYS and ARGV are each call's own.
    t.check("EVAL \"KEYS[2] = 'x' ARGV.secret = 's' return #KEYS\" 1 a", "2")
        .check("EVAL \"return {#KEYS, #ARGV, tostring(ARGV.secret)}\" 0", "[0 0 \"nil\"]");
}

#[test]
fn garbage_is_collected_whatever_a_script_says() {
    for shards in [1, 2] {
        let mut world = World::new(shards);
        let conn = world.connect();
        world.run(conn, "EVAL \"collectgarbage('stop') collectgarbage('setpause', 1000000) return 1\" 0");
        for _ in 0..60 {
            world.run(conn, "EVAL \"local t = {} for i = 1, 20000 do t[i] = i .. 'x' end return #t\" 0");
        }
        let info = world.run(conn, "INFO memory").text();
        let line = info.lines().find(|line| line.starts_with("used_memory_vm_eval:")).expect("the field is there");
        let bytes: u64 = line.split(':').nth(1).unwrap().trim().parse().unwrap();
        // Each made more than a MB.
        assert!(bytes < 40_000_000, "{bytes}");
    }
}

#[test]
fn the_libraries_are_there() {
    let mut t = Check::new();
    t.check(r#"EVAL 'return cjson.encode({1,2,{a="b/c"}})' 0"#, r#""[1,2,{\"a\":\"b\\/c\"}]""#)
        .check(r#"EVAL 'return cjson.decode(ARGV[1])[2].k' 0 '[1,{"k":"\u00e9\n"}]'"#, r#""\xc3\xa9\n""#)
        .check(r#"EVAL 'return tostring(cjson.decode(ARGV[1]) == cjson.null)' 0 null"#, "\"true\"")
        .check(
            "EVAL 'return {pcall(cjson.decode, \"[1,\")}' 0",
            "[nil \"Expected value but found T_END at character 4\"]",
        )
        .check(
            "EVAL 'return {pcall(cjson.encode, {[1]=1,[100]=1})}' 0",
            "[nil \"Cannot serialise table: excessively sparse array\"]",
        )
        .check(
            r#"EVAL 'return cmsgpack.pack({1,-1,300,"a",1.5,true})' 0"#,
            r#""\x96\x01\xff\xcd\x01,\xa1a\xca?\xc0\x00\x00\xc3""#,
        )
        .check(r#"EVAL 'return cmsgpack.unpack(cmsgpack.pack({"x",{1,2}}))' 0"#, "[\"x\" [1 2]]")
        .check("EVAL 'return {cmsgpack.unpack_one(\"\\1\\2\\3\", 1)}' 0", "[2 2]")
        .check("EVAL 'return struct.pack(\">I2hs\", 258, -2, \"ab\")' 0", r#""\x01\x02\xff\xfeab\x00""#)
        .check("EVAL 'return {struct.unpack(\"<I2c0\", struct.pack(\"<I2c3\", 3, \"xyz\"))}' 0", "[\"xyz\" 6]")
        .check("EVAL 'return struct.size(\"!8bd\")' 0", "16")
        .check("EVAL 'return {bit.band(255,15),bit.lshift(1,31),bit.bnot(0),bit.rol(1,33)}' 0", "[15 -2147483648 -1 2]")
        .check("EVAL 'return bit.tohex(65535,-2147483648)' 0", "\"0000FFFF\"")
        .check(
            "EVAL 'math.randomseed(10) local a = math.random() math.randomseed(10) return a == math.random()' 0",
            "1",
        );
}

#[test]
fn scripts_are_known_to_all_shards_until_they_are_flushed() {
    let mut world = World::new(4);
    let conns: Vec<_> = (0..4).map(|shard| world.connect_to(shard)).collect();
    let sha = world.run(conns[0], "SCRIPT LOAD 'return KEYS[1]'").text();
    for conn in &conns {
        assert_eq!(world.run(*conn, &format!("EVALSHA {} 1 key", sha.to_uppercase())).to_string(), "\"key\"");
        assert_eq!(world.run(*conn, &format!("SCRIPT EXISTS {sha} x")).to_string(), "[1 0]");
    }
    world.run(conns[3], "SCRIPT FLUSH");
    for conn in &conns {
        let reply = world.run(*conn, &format!("EVALSHA {sha} 1 key")).to_string();
        assert_eq!(reply, "-NOSCRIPT No matching script. Please use EVAL.");
    }
}

/// Keys of shards 0, 1 … of four.
fn key_on(shard: u16, n: usize) -> String {
    (0..).map(|i| format!("k{n}:{i}")).find(|key| crate::router::owner_of(key.as_bytes(), 4) == shard).unwrap()
}

#[test]
fn a_script_that_stays_with_its_keys_is_sent_to_them() {
    let mut world = World::new(4);
    let conn = world.connect_to(0);
    let key = key_on(2, 0);
    let script = format!("EVAL 'return redis.call(\"incr\",KEYS[1])' 1 {key}");
    assert_eq!(world.run(conn, &script).to_string(), "1");
    let before: u64 = world.shards.iter().map(|shard| shard.core.stats.transactions).sum();
    assert_eq!(world.run(conn, &script).to_string(), "2");
    assert_eq!(world.shards.iter().map(|shard| shard.core.stats.transactions).sum::<u64>(), before);
}

#[test]
fn a_script_that_strays_is_undone_and_begun_anew() {
    let mut world = World::new(4);
    world.log_effects();
    let conn = world.connect_to(0);
    let (near, far) = (key_on(2, 0), key_on(1, 0));
    let script = "redis.call(\"rpush\",KEYS[1],ARGV[1]) redis.call(\"expire\",KEYS[1],100) \
                  if ARGV[2] then redis.call(\"incr\",ARGV[2]) end return redis.call(\"lrange\",KEYS[1],0,-1)";
    assert_eq!(world.run(conn, &format!("EVAL '{script}' 1 {near} a")).to_string(), "[\"a\"]");
    world.effects();
    // It is trusted now, and strays after two writes; what follows in the pipeline keeps its place.
    let line = |words: &[&str]| crate::testing::request(words);
    let mut bytes = line(&["EVAL", script, "1", &near, "b", &far]);
    bytes.extend(line(&["LLEN", &near]));
    bytes.extend(line(&["RPUSH", &near, "c"]));
    world.send(conn, &bytes);
    let replies = String::from_utf8(world.received(conn)).unwrap();
    assert_eq!(replies, "*2\r\n$1\r\na\r\n$1\r\nb\r\n:2\r\n:3\r\n");
    assert_eq!(world.run(conn, &format!("GET {far}")).to_string(), "\"1\"");
    let effects = world.effects().join(";");
    assert_eq!(effects.matches("RPUSH").count() + effects.matches("rpush").count(), 2, "{effects}");
    // It is not trusted again.
    let before: u64 = world.shards.iter().map(|shard| shard.core.stats.transactions).sum();
    world.run(conn, &format!("EVAL '{script}' 1 {near} d"));
    assert!(world.shards.iter().map(|shard| shard.core.stats.transactions).sum::<u64>() > before);
}

#[test]
fn effects_of_a_script_are_one_group() {
    let mut world = World::new(1);
    world.log_effects();
    let conn = world.connect();
    world.run(conn, "EVAL 'redis.call(\"set\",\"a\",1) redis.call(\"spop\",\"none\") redis.call(\"incr\",\"a\")' 0");
    assert_eq!(world.effects(), ["MULTI", "SELECT 0", "set a 1", "incr a", "EXEC"]);
    world.run(conn, "EVAL 'redis.set_repl(redis.REPL_NONE) redis.call(\"set\",\"a\",1)' 0");
    assert_eq!(world.effects(), [""; 0]);
}

#[test]
fn flags_in_the_first_line_are_obeyed() {
    let mut t = Check::new();
    let script = |flags: &str, body: &str| format!("EVAL \"#!lua {flags}\\n{body}\" 1 k");
    t.check(&script("flags=no-writes", "return 1"), "1")
        .check(&script("flags=", "return redis.call('set',KEYS[1],1)"), "OK")
        .check(&script("badger=1", "return 1"), "-ERR Unknown lua shebang option: badger=1")
        .check(&script("flags=what", "return 1"), "-ERR Unexpected flag in script shebang: what")
        .check("EVAL \"#!not\\nreturn 1\" 0", "-ERR Unexpected engine in script shebang: #!not")
        .check(
            &script("flags=", "return 1").replace("EVAL", "EVAL_RO"),
            "-ERR Can not execute a script with write flag using *_ro command.",
        );
    t.look(&script("flags=no-writes", "return redis.call('set',KEYS[1],1)"), |reply| {
        assert!(reply.text().starts_with("ERR Write commands are not allowed from read-only scripts."));
    });
}

#[test]
fn libraries_are_loaded_listed_and_dumped() {
    let mut t = Check::new();
    let load = "FUNCTION LOAD \"#!lua name=lib\\nlocal n = 0\\nredis.register_function('f', function(keys, args) \
                return redis.call('incr', keys[1]) end)\\nredis.register_function{function_name='g', \
                callback=function(keys, args) return args[1] end, flags={'no-writes'}, description='says'}\"";
    t.check(load, "\"lib\"")
        .check(load, "-ERR Library 'lib' already exists")
        .check(&load.replace("LOAD", "LOAD REPLACE"), "\"lib\"")
        .check("FCALL f 1 k", "1")
        .check("FCALL f 1 k", "2")
        .check("FCALL_RO G 1 k x", "\"x\"")
        .check("FCALL_RO f 1 k", "-ERR Can not execute a script with write flag using *_ro command.")
        .check("FCALL none 0", "-ERR Function not found")
        .check("FCALL f x", "-ERR Bad number of keys provided")
        .check(&load.replace("name=lib", "name=other"), "-ERR Function f already exists")
        .check("FUNCTION LOAD \"#!lua name=l\\nreturn 1\"", "-ERR No functions registered")
        .check("FUNCTION LOAD \"return 1\"", "-ERR Missing library metadata")
        .check("FUNCTION LOAD \"#!lua name=l\\nreturn math\"", "-ERR Error registering functions: ERR user_function:2: Script attempted to access nonexistent global variable 'math'");
    t.look("FUNCTION LIST", |reply| assert!(reply.to_string().contains("no-writes"), "{reply}"));
    t.check("FUNCTION DELETE lib", "OK").check("FUNCTION DELETE lib", "-ERR Library not found");
    t.check(load, "\"lib\"")
        .check("FUNCTION FLUSH", "OK")
        .check("FUNCTION LIST", "[]")
        .check("FCALL f 1 k", "-ERR Function not found");
    let mut world = World::new(4);
    let conn = world.connect();
    world.run(conn, load);
    let dump = world.call(conn, &["FUNCTION", "DUMP"]);
    let dump = &dump[dump.iter().position(|byte| *byte == b'\n').unwrap() + 1..dump.len() - 2];
    let restore = |world: &mut World, how: &[u8]| {
        String::from_utf8(world.call(conn, &[b"FUNCTION", &b"RESTORE"[..], dump, how])).unwrap()
    };
    assert_eq!(restore(&mut world, b"append"), "-ERR Library lib already exists\r\n");
    assert_eq!(restore(&mut world, b"replace"), "+OK\r\n");
    world.run(conn, "FUNCTION FLUSH");
    assert_eq!(restore(&mut world, b"flush"), "+OK\r\n");
    assert_eq!(world.run(conn, "FCALL f 1 q").to_string(), "1");
}

#[test]
fn blocking_commands_do_not_wait_in_scripts() {
    let mut t = Check::new();
    t.check("EVAL 'return redis.call(\"blpop\",KEYS[1],0)' 1 none", "nil");
    t.check("EVAL 'return redis.call(\"xread\",\"block\",0,\"streams\",KEYS[1],\"$\")' 1 none", "nil");
    t.check("MULTI", "OK").check("EVAL 'return redis.call(\"set\",KEYS[1],1)' 1 k", "QUEUED").check("EXEC", "[OK]");
}

const BUSY: &str = "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";

/// A server whose clock makes scripts slow at once, and two of its clients: the first has sent this, and waits.
fn busy_world(shards: usize, line: &str) -> (World, [crate::testing::Conn; 2]) {
    World::set_look_us(2000);
    let mut world = World::with_config(shards, &[("busy-reply-threshold", "1")]);
    let (waiting, other) = (world.connect_to(0), world.connect_to(shards as u16 - 1));
    let words = crate::quote::split_args(line.as_bytes()).unwrap();
    world.send(waiting, &crate::testing::request(&words));
    assert!(world.received(waiting).is_empty(), "it is still running");
    (world, [waiting, other])
}

fn received(world: &mut World, conn: crate::testing::Conn) -> String {
    String::from_utf8(world.received(conn)).unwrap()
}

#[test]
fn a_slow_script_lets_its_shard_answer_and_can_be_killed() {
    for shards in [1, 4] {
        let (mut world, [waiting, other]) = busy_world(shards, "EVAL 'while true do end' 0");
        for _ in 0..3 {
            world.end_turns();
            assert_eq!(world.run(other, "PING").to_string(), BUSY);
        }
        let neighbour = world.connect_to(0);
        assert_eq!(world.run(neighbour, "EVAL 'return 1' 0").to_string(), BUSY);
        assert_eq!(world.run(neighbour, "MULTI").to_string(), "OK");
        assert_eq!(world.run(neighbour, "PING").to_string(), BUSY);
        let aborted = world.run(neighbour, "EXEC").to_string();
        assert!(aborted.starts_with("-EXECABORT"), "{aborted}");
        assert!(world.run(other, "FUNCTION KILL").to_string().starts_with("-BUSY"));
        assert_eq!(world.run(other, "SCRIPT KILL").to_string(), "OK");
        world.end_turns();
        let reply = received(&mut world, waiting);
        assert!(reply.starts_with("-ERR Error running script") || reply.contains("killed by user"), "{reply}");
        assert_eq!(world.run(other, "PING").to_string(), "\"PONG\"".replace('"', ""));
        assert_eq!(world.run(neighbour, "EVAL 'return 1' 0").to_string(), "1");
        assert!(world.shards.iter().all(crate::shard::Shard::is_quiet));
    }
}

#[test]
fn a_slow_script_keeps_its_keys_and_no_others() {
    let counts = "EVAL 'for i = 1, 3000000 do end redis.call(\"set\", KEYS[1], 2) for i = 1, 3000000 do end \
                  return redis.call(\"incr\", KEYS[1])' 1 a";
    for (shards, line) in [(1, counts), (4, counts)] {
        // From the second run on it has the slice of its key alone in hand.
        World::set_look_us(1);
        let (mut world, [waiting, other]) = busy_world(shards, line);
        let mut ended = false;
        for run in 0..2 {
            let mut turns = 0;
            while !ended {
                if shards == 4 && run == 1 {
                    // "b" lives on another shard than "a".
                    assert_eq!(world.run(other, "SET b 1").to_string(), "OK");
                    assert_eq!(world.run(other, "GET b").to_string(), "\"1\"");
                }
                assert_eq!(world.run(other, "GET a").to_string(), BUSY);
                assert_eq!(world.run(other, "MGET a b").to_string(), BUSY);
                world.end_turns();
                let reply = received(&mut world, waiting);
                ended = !reply.is_empty();
                assert!(reply.is_empty() || reply == ":3\r\n", "{reply}");
                turns += 1;
                assert!(turns < 10_000, "it goes on");
            }
            assert!(turns > 1, "it was put aside more than once");
            assert_eq!(world.run(other, "GET a").to_string(), "\"3\"");
            assert!(world.shards.iter().all(crate::shard::Shard::is_quiet), "{}", world.shards[0].unrest());
            if run == 0 {
                let words = crate::quote::split_args(line.as_bytes()).unwrap();
                world.send(waiting, &crate::testing::request(&words));
                ended = false;
            }
        }
    }
}

#[test]
fn a_slow_script_that_has_written_cannot_be_killed_and_its_client_may_go() {
    let line = "EVAL 'redis.call(\"set\", KEYS[1], 1) for i = 1, 3000000 do end redis.call(\"incr\", KEYS[1])' 1 a";
    for shards in [1, 4] {
        let (mut world, [waiting, other]) = busy_world(shards, line);
        assert!(world.run(other, "SCRIPT KILL").to_string().starts_with("-UNKILLABLE"));
        world.disconnect(waiting);
        for _ in 0..10_000 {
            if world.run(other, "GET a").to_string() == "\"2\"" {
                break;
            }
            world.end_turns();
        }
        assert_eq!(world.run(other, "GET a").to_string(), "\"2\"");
        assert!(world.run(other, "SCRIPT KILL").to_string().starts_with("-NOTBUSY"));
        assert!(world.shards.iter().all(crate::shard::Shard::is_quiet));
    }
}

/// What a slow script has done is nobody's to see before it has ended: not of those who wait for its keys either.
#[test]
fn nobody_is_served_what_a_slow_script_has_pushed_so_far() {
    for shards in [1, 4] {
        World::set_look_us(1);
        let mut world = World::with_config(shards, &[("busy-reply-threshold", "1")]);
        let (waiting, script) = (world.connect(), world.connect_to(0));
        world.send(waiting, &crate::testing::request(&["BLPOP", "a", "0"]));
        World::set_look_us(2000);
        let text = "redis.call('lpush', KEYS[1], 'y') for i = 1, 3000000 do end redis.call('lpush', KEYS[1], 'z')";
        world.send(script, &crate::testing::request(&["EVAL", text, "1", "a"]));
        let mut turns = 0;
        loop {
            let reply = received(&mut world, waiting);
            if !reply.is_empty() {
                assert_eq!(reply, "*2\r\n$1\r\na\r\n$1\r\nz\r\n");
                break;
            }
            world.end_turns();
            turns += 1;
            assert!(turns < 10_000, "it goes on");
        }
        assert!(turns > 1, "it was put aside");
        World::set_look_us(1);
    }
}

/// What stands behind a slow script in its own pipeline waits for it, and is not told that it is busy.
#[test]
fn a_pipeline_waits_for_its_own_slow_script() {
    for shards in [1, 4] {
        World::set_look_us(2000);
        let mut world = World::with_config(shards, &[("busy-reply-threshold", "1")]);
        let (conn, other) = (world.connect_to(0), world.connect_to(shards as u16 - 1));
        let script = crate::testing::request(&["EVAL", "while true do end", "0"]);
        world.send(conn, &[script, crate::testing::request(&["PING"])].concat());
        world.end_turns();
        assert_eq!(world.run(other, "PING").to_string(), BUSY);
        assert_eq!(world.run(other, "SCRIPT KILL").to_string(), "OK");
        world.end_turns();
        world.end_turns();
        let replies = received(&mut world, conn);
        assert!(replies.contains("killed by user") && replies.ends_with("+PONG\r\n"), "{replies}");
        World::set_look_us(1);
    }
}
