//! What scripts find around them: Lua's harmless functions, and tables that they cannot change.
//!
//! Redis patches Lua so that a table can be made read-only. Here it is Lua as it is, and a script never holds such a
//! table but a stand-in ([`protect`]): an empty table whose metatable reads through to the real one and refuses
//! writes. The few functions that reach past metatables (`rawset`, `setmetatable`, `next` …) know stand-ins and treat
//! them as Redis treats its read-only tables. Counterpart: `luaSetTableProtectionRecursively` in `script_lua.c`.

use std::ffi::c_int;

use mlua_sys as ffi;

use super::lua::*;

/// Globals that scripts have from Lua's own libraries; what else these define is taken away.
const BASE: [&str; 24] = [
    "xpcall",
    "tostring",
    "getfenv",
    "setmetatable",
    "next",
    "assert",
    "tonumber",
    "rawequal",
    "collectgarbage",
    "getmetatable",
    "rawset",
    "pcall",
    "coroutine",
    "type",
    "select",
    "unpack",
    "gcinfo",
    "pairs",
    "rawget",
    "loadstring",
    "ipairs",
    "_VERSION",
    "setfenv",
    "load",
];

const READ_ONLY: &str = "Attempt to modify a readonly table";

/// Its address is the key under which a stand-in's metatable has the real table.
static REAL: u8 = 0;
/// Its address is the key under which a stand-in's metatable has what `getmetatable` says of it.
static SHOWN: u8 = 0;

fn real_key() -> *const std::ffi::c_void {
    (&raw const REAL).cast()
}

fn shown_key() -> *const std::ffi::c_void {
    (&raw const SHOWN).cast()
}

/// Pushes the real table of a stand-in at `index`, if it is one.
pub(super) fn push_real(lua: Lua, index: c_int) -> bool {
    if !lua.is_table(index) || !lua.metatable(index) {
        return false;
    }
    lua.push_light(real_key());
    lua.raw_get(-2);
    lua.remove(-2);
    match lua.is_table(-1) {
        true => true,
        false => {
            lua.pop(1);
            false
        }
    }
}

/// Replaces the table on top by a stand-in for it. `getmetatable` of that gives the value at `shown`, or nil.
pub(super) fn protect(lua: Lua, shown: Option<c_int>) {
    let shown = shown.map(|index| lua.absolute(index));
    let real = lua.top();
    lua.push_table(0, 0);
    lua.push_table(0, 4);
    lua.copy(real);
    lua.set_field(-2, "__index");
    lua.push_function(refuse);
    lua.set_field(-2, "__newindex");
    lua.push_light(real_key());
    lua.copy(real);
    lua.raw_set(-3);
    if let Some(shown) = shown {
        lua.push_light(shown_key());
        lua.copy(shown);
        lua.raw_set(-3);
    }
    lua.set_metatable(-2);
    lua.replace(real);
}

fn refuse(_: Lua) -> Result<c_int, Raise> {
    Err(Raise::Text(READ_ONLY.into()))
}

fn refuse_without_place(lua: Lua) -> Result<c_int, Raise> {
    lua.push_bytes(READ_ONLY.as_bytes());
    Err(Raise::Top)
}

/// Opens the libraries and sets the globals that all scripts have, on the real table of globals.
pub(super) fn open(lua: Lua) {
    lua.open(Library::Base);
    lua.open(Library::Table);
    lua.open(Library::String);
    lua.open(Library::Math);
    let functions: [(&str, Function); 5] = [
        ("getmetatable", get_metatable),
        ("setmetatable", set_metatable),
        ("rawget", raw_get),
        ("rawset", raw_set),
        ("loadstring", load_string),
    ];
    for (name, function) in functions {
        lua.push_function(function);
        lua.set_field(GLOBALS, name);
    }
    let functions =
        [("pcall", pcall as CFunction), ("load", load), ("pairs", pairs), ("next", next), ("unpack", unpack)];
    for (name, function) in functions {
        lua.push_c_function(function);
        lua.set_field(GLOBALS, name);
    }
    lua.field(GLOBALS, "string");
    for name in ["find", "match", "gmatch", "gfind", "gsub"] {
        lua.field(-1, name);
        match lua.kind(-1) {
            LUA_TFUNCTION => {
                lua.wrap_c_function(match_bounded);
                lua.set_field(-2, name);
            }
            _ => lua.pop(1),
        }
    }
    lua.pop(1);
    lua.field(GLOBALS, "table");
    lua.push_c_function(insert);
    lua.set_field(-2, "insert");
    lua.pop(1);
    // Only what is on the list stays: no files, no printing, and no `newproxy`, whose finalizers would run inside ours.
    lua.copy(GLOBALS);
    lua.push_nil();
    while lua.next(-2) {
        let name = lua.bytes(-2).unwrap_or_default().to_vec();
        lua.pop(1);
        let known = BASE.iter().any(|known| known.as_bytes() == name) || name == b"error";
        if !known && ![&b"table"[..], b"string", b"math"].contains(&&name[..]) {
            lua.push_bytes(&name);
            lua.push_nil();
            lua.raw_set(-4);
        }
    }
    lua.pop(1);
}

/// Locks what was set up: scripts get stand-ins for the globals and for each table among them.
pub(super) fn lock(lua: Lua) {
    lua.copy(GLOBALS);
    let globals = lua.top();
    // The metatable that all strings share reads the real functions; scripts are shown a stand-in.
    lua.push_bytes(b"");
    let strings = lua.metatable(-1);
    debug_assert!(strings);
    lua.push_light(shown_key());
    lua.push_table(0, 1);
    lua.field(globals, "string");
    protect(lua, None);
    lua.set_field(-2, "__index");
    protect(lua, None);
    lua.raw_set(-3);
    lua.set_top(globals);

    let mut tables = Vec::new();
    lua.push_nil();
    while lua.next(globals) {
        if lua.is_table(-1) {
            tables.push(lua.bytes(-2).unwrap_or_default().to_vec());
        }
        lua.pop(1);
    }
    for name in tables {
        lua.push_bytes(&name);
        lua.copy(-1);
        lua.raw_get(globals);
        protect(lua, None);
        lua.raw_set(globals);
    }
    // Reading what is not there is an error.
    lua.push_table(0, 1);
    lua.push_function(no_such_global);
    lua.set_field(-2, "__index");
    lua.copy(-1);
    lua.set_metatable(globals);
    protect(lua, None);
    lua.copy(globals);
    protect(lua, Some(-2));
    lua.copy(-1);
    lua.set_field(globals, "_G");
    lua.replace(GLOBALS);
    lua.set_top(globals - 1);
}

pub(super) fn no_such_global(lua: Lua) -> Result<c_int, Raise> {
    let name = lua.bytes(2).map(|name| String::from_utf8_lossy(name).into_owned());
    let name = name.ok_or_else(|| Raise::Text("a global variable's name is a string or a number".into()))?;
    Err(Raise::Text(format!("Script attempted to access nonexistent global variable '{name}'")))
}

fn get_metatable(lua: Lua) -> Result<c_int, Raise> {
    if lua.top() == 0 {
        return Err(Raise::Arg(1, "value expected".into()));
    }
    if !lua.metatable(1) {
        lua.push_nil();
        return Ok(1);
    }
    lua.push_light(real_key());
    lua.raw_get(-2);
    let stand_in = lua.is_table(-1);
    lua.pop(1);
    lua.push_light(shown_key());
    lua.raw_get(-2);
    if stand_in || lua.is_table(-1) {
        return Ok(1);
    }
    lua.pop(1);
    lua.field(-1, "__metatable");
    if lua.kind(-1) == LUA_TNIL {
        lua.pop(1);
    }
    Ok(1)
}

fn set_metatable(lua: Lua) -> Result<c_int, Raise> {
    if !lua.is_table(1) {
        return Err(lua.wrong_type(1, "table"));
    }
    if !matches!(lua.kind(2), LUA_TNIL | LUA_TTABLE) {
        return Err(Raise::Arg(2, "nil or table expected".into()));
    }
    if push_real(lua, 1) {
        return refuse_without_place(lua);
    }
    if lua.metatable(1) {
        lua.field(-1, "__metatable");
        if lua.kind(-1) != LUA_TNIL {
            return Err(Raise::Text("cannot change a protected metatable".into()));
        }
    }
    lua.set_top(2);
    lua.set_metatable(1);
    Ok(1)
}

fn raw_get(lua: Lua) -> Result<c_int, Raise> {
    if !lua.is_table(1) {
        return Err(lua.wrong_type(1, "table"));
    }
    if lua.top() < 2 {
        return Err(Raise::Arg(2, "value expected".into()));
    }
    lua.set_top(2);
    if push_real(lua, 1) {
        lua.replace(1);
    }
    lua.raw_get(1);
    Ok(1)
}

fn raw_set(lua: Lua) -> Result<c_int, Raise> {
    if !lua.is_table(1) {
        return Err(lua.wrong_type(1, "table"));
    }
    if lua.top() < 3 {
        return Err(Raise::Arg(lua.top() + 1, "value expected".into()));
    }
    lua.set_top(3);
    if push_real(lua, 1) {
        return refuse_without_place(lua);
    }
    match lua.kind(2) {
        LUA_TNIL => return Err(Raise::Text("table index is nil".into())),
        LUA_TNUMBER if lua.number(2).is_nan() => return Err(Raise::Text("table index is NaN".into())),
        _ => {}
    }
    lua.raw_set(1);
    Ok(1)
}

/// `next`, also through stand-ins.
unsafe extern "C-unwind" fn next(state: *mut State) -> c_int {
    let lua = Lua(state);
    // SAFETY: raises for what is no table, and `lua_next` for a key that is not in it; nothing here needs dropping.
    unsafe { ffi::luaL_checktype(state, 1, LUA_TTABLE) };
    lua.set_top(2);
    if push_real(lua, 1) {
        lua.replace(1);
    }
    if lua.next(1) {
        return 2;
    }
    lua.push_nil();
    1
}

unsafe extern "C-unwind" fn pairs(state: *mut State) -> c_int {
    let lua = Lua(state);
    // SAFETY: raises for what is no table, and nothing here needs dropping.
    unsafe { ffi::luaL_checktype(state, 1, LUA_TTABLE) };
    lua.push_c_function(next);
    lua.copy(1);
    lua.push_nil();
    3
}

/// `pcall`, which gives an error's text where it is a table with one, as scripts written before Redis 7 expect.
unsafe extern "C-unwind" fn pcall(state: *mut State) -> c_int {
    let lua = Lua(state);
    // SAFETY: what is called may raise, but not past `lua_pcall`; nothing here needs dropping.
    unsafe {
        ffi::luaL_checkany(state, 1);
        let args = lua.top();
        lua.push_bool(true);
        lua.insert(1);
        if ffi::lua_pcall(state, args - 1, ffi::LUA_MULTRET, 0) != 0 {
            lua.remove(1);
            if lua.is_table(-1) {
                lua.field(-1, "err");
                if lua.is_text(-1) {
                    lua.replace(-2);
                } else {
                    lua.pop(1);
                }
            }
            lua.push_bool(false);
            lua.insert(1);
        }
    }
    lua.top()
}

fn load_string(lua: Lua) -> Result<c_int, Raise> {
    let source = lua.arg_bytes(1)?;
    let name = match lua.kind(2) {
        k if k <= LUA_TNIL => source,
        _ => lua.arg_bytes(2)?,
    };
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = std::ffi::CString::new(&name[..end]).expect("it was cut before a zero");
    if lua.load(source, &name) {
        return Ok(1);
    }
    lua.push_nil();
    lua.insert(-2);
    Ok(2)
}

/// `load`: puts the pieces together first, so that what is compiled can be looked at.
unsafe extern "C-unwind" fn load(state: *mut State) -> c_int {
    let lua = Lua(state);
    // SAFETY: raises or returns, and nothing here needs dropping.
    unsafe {
        ffi::luaL_checktype(state, 1, LUA_TFUNCTION);
        let name = ffi::luaL_optlstring(state, 2, c"=(load)".as_ptr(), std::ptr::null_mut());
        lua.set_top(2);
        lua.push_bytes(b"");
        loop {
            lua.copy(1);
            ffi::lua_call(state, 0, 1);
            match lua.kind(-1) {
                LUA_TNIL => break,
                LUA_TSTRING if lua.len(-1) == 0 => break,
                LUA_TSTRING => ffi::lua_concat(state, 2),
                _ => return ffi::luaL_error(state, c"reader function must return a string".as_ptr()),
            }
        }
        lua.pop(1);
        if lua.load(lua.bytes(-1).unwrap_or_default(), std::ffi::CStr::from_ptr(name)) {
            return 1;
        }
        lua.push_nil();
        lua.insert(-2);
        2
    }
}

/// `unpack`. Lua's own tells a range that is too long by an `int` that overflows, which compilers may take as never
/// happening; then it writes past its stack.
unsafe extern "C-unwind" fn unpack(state: *mut State) -> c_int {
    let lua = Lua(state);
    // SAFETY: raises or returns, with room on the stack for what it pushes; nothing here needs dropping.
    unsafe {
        ffi::luaL_checktype(state, 1, LUA_TTABLE);
        let from = ffi::luaL_optinteger(state, 2, 1) as i128;
        let to = match ffi::lua_type(state, 3) {
            ffi::LUA_TNONE | LUA_TNIL => lua.len(1) as i128,
            _ => ffi::luaL_checkinteger(state, 3) as i128,
        };
        if from > to {
            return 0;
        }
        let (Ok(first), Ok(last), Ok(n)) = (c_int::try_from(from), c_int::try_from(to), c_int::try_from(to - from + 1))
        else {
            return ffi::luaL_error(state, c"too many results to unpack".as_ptr());
        };
        if ffi::lua_checkstack(state, n) == 0 {
            return ffi::luaL_error(state, c"too many results to unpack".as_ptr());
        }
        for index in first..=last {
            ffi::lua_rawgeti_(state, 1, index);
        }
        n
    }
}

/// Most items of a pattern at which matching calls itself. Lua 5.1 goes as deep as the pattern is long, past the end of
/// the stack; later ones stop at 200.
const PATTERN_DEPTH_MAX: usize = 1000;

/// A function of `string` with a pattern as its second argument, which is the closure's upvalue and needs none itself:
/// it runs in this frame, so that its errors read as ever.
unsafe extern "C-unwind" fn match_bounded(state: *mut State) -> c_int {
    let lua = Lua(state);
    // SAFETY: the upvalue is a function in C; it raises or returns, and nothing here needs dropping.
    unsafe {
        if lua.kind(2) == LUA_TSTRING {
            let pattern = lua.bytes(2).unwrap_or_default();
            if pattern.iter().filter(|byte| b"?*+-()".contains(byte)).count() > PATTERN_DEPTH_MAX {
                return ffi::luaL_error(state, c"pattern too complex".as_ptr());
            }
        }
        match ffi::lua_tocfunction(state, ffi::lua_upvalueindex(1)) {
            Some(function) => function(state),
            None => 0,
        }
    }
}

/// `table.insert`, which writes past metatables, for all but stand-ins.
unsafe extern "C-unwind" fn insert(state: *mut State) -> c_int {
    let lua = Lua(state);
    // SAFETY: raises or returns, and nothing here needs dropping.
    unsafe {
        ffi::luaL_checktype(state, 1, LUA_TTABLE);
        if push_real(lua, 1) {
            lua.push_bytes(READ_ONLY.as_bytes());
            ffi::lua_error(state);
        }
        let border = lua.len(1) as i64 + 1;
        let at = match lua.top() {
            2 => border,
            3 => {
                let at = ffi::luaL_checkinteger(state, 2) as i64;
                let mut to = border.max(at);
                while to > at {
                    ffi::lua_rawgeti_(state, 1, (to - 1) as c_int);
                    ffi::lua_rawseti_(state, 1, to as c_int);
                    to -= 1;
                }
                at
            }
            _ => return ffi::luaL_error(state, c"wrong number of arguments to 'insert'".as_ptr()),
        };
        ffi::lua_rawseti_(state, 1, at as c_int);
    }
    0
}
