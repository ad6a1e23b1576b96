//! A thin face over Lua 5.1's C API: a stack of values, and Rust functions that Lua calls.
//!
//! Lua raises errors by `longjmp`, which runs no destructor. So a Rust function that Lua calls ([`Function`]) never
//! raises by itself: it returns [`Raise`], and the one frame below it ([`enter`]), which holds nothing that needs
//! dropping, does. Everything such a function may do through [`Lua`] is chosen so that Lua cannot raise in the midst
//! of it: raw reads and writes that run no metamethod, with room on the stack made by [`Lua::room`]. What is left is
//! memory running out; while Rust frames lie on the stack that ends the process ([`allocate`]), as it does elsewhere in
//! Rust. No script can make a finalizer (there is no `newproxy`), so no Lua code runs inside an allocation.
//!
//! Indices are Lua's: from 1 at the bottom of the frame, or from -1 at the top. Callers in this folder use only those
//! they have pushed or counted.

use std::alloc::Layout;
use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use mlua_sys as ffi;

pub(super) use ffi::{
    LUA_GLOBALSINDEX as GLOBALS, LUA_REGISTRYINDEX as REGISTRY, LUA_TBOOLEAN, LUA_TFUNCTION, LUA_TLIGHTUSERDATA,
    LUA_TNIL, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE, lua_State as State,
};

/// A function in C, whose frame holds nothing that needs dropping.
pub(super) type CFunction = unsafe extern "C-unwind" fn(*mut State) -> c_int;

/// A function for Lua: takes its arguments from the stack, leaves its results on top, returns how many.
pub(super) type Function = fn(Lua) -> Result<c_int, Raise>;

/// How a function fails.
#[derive(Debug)]
pub(super) enum Raise {
    /// With the value on top of the stack.
    Top,
    /// With a text, behind the place in the script that called (`luaL_error`).
    Text(String),
    /// With a text about this argument (`luaL_argerror`).
    Arg(c_int, String),
}

/// What belongs to one Lua machine, reachable from every thread of it.
#[derive(Debug)]
pub(super) struct Extra {
    /// Rust frames that must not be jumped over lie on the stack.
    in_rust: Cell<bool>,
    /// The host's own state, an address that [`super::machine`] gives its meaning.
    pub(super) host: Cell<*mut c_void>,
    /// Bytes allocated.
    pub(super) bytes: Cell<usize>,
}

/// One thread of a Lua machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lua(pub(super) *mut State);

/// A Lua machine; dropping it frees all that it holds.
#[derive(Debug)]
pub(super) struct Machine {
    lua: Lua,
    extra: Box<Extra>,
}

const ALIGN: usize = 16;

/// Lua's allocator, on Rust's: counts bytes.
unsafe extern "C" fn allocate(extra: *mut c_void, old: *mut c_void, old_size: usize, size: usize) -> *mut c_void {
    // SAFETY: the pointer is the one that `Machine::new` gave, and the box behind it outlives the Lua state.
    let extra = unsafe { &*extra.cast::<Extra>() };
    // SAFETY: Lua tells the size with which a block was allocated, and here all have one alignment.
    unsafe {
        if size == 0 {
            if !old.is_null() {
                std::alloc::dealloc(old.cast(), Layout::from_size_align_unchecked(old_size, ALIGN));
                extra.bytes.set(extra.bytes.get() - old_size);
            }
            return ptr::null_mut();
        }
        let Ok(layout) = Layout::from_size_align(size, ALIGN) else { return ptr::null_mut() };
        let (block, before) = match old.is_null() {
            true => (std::alloc::alloc(layout), 0),
            false => {
                (std::alloc::realloc(old.cast(), Layout::from_size_align_unchecked(old_size, ALIGN), size), old_size)
            }
        };
        if block.is_null() {
            // Elsewhere a script gets «not enough memory».
            if extra.in_rust.get() {
                std::alloc::handle_alloc_error(layout);
            }
            return ptr::null_mut();
        }
        extra.bytes.set(extra.bytes.get() + size - before);
        block.cast()
    }
}

/// What [`enter`] does after the function, when nothing is left to drop.
enum End {
    Return(c_int),
    Raise,
    RaiseArg(c_int),
}

/// Calls the Rust function whose address is the closure's first upvalue.
unsafe extern "C-unwind" fn enter(state: *mut State) -> c_int {
    // SAFETY: only `Lua::push_function` makes closures over this function, with such an address.
    let function =
        unsafe { std::mem::transmute::<*mut c_void, Function>(ffi::lua_touserdata(state, ffi::lua_upvalueindex(1))) };
    match call(Lua(state), function) {
        End::Return(n) => n,
        // SAFETY: nothing here needs dropping, and the value to raise is on top.
        End::Raise => unsafe { ffi::lua_error(state) },
        // SAFETY: as above; the text on top lives until the jump has copied it.
        End::RaiseArg(at) => unsafe { ffi::luaL_argerror(state, at, ffi::lua_tostring(state, -1)) },
    }
}

fn call(lua: Lua, function: Function) -> End {
    let inside = lua.extra().in_rust.replace(true);
    let end = match function(lua) {
        Ok(n) => End::Return(n),
        Err(Raise::Top) => End::Raise,
        Err(Raise::Text(text)) => {
            lua.push_text_with_place(&text);
            End::Raise
        }
        Err(Raise::Arg(at, text)) => {
            lua.push_bytes(text.as_bytes());
            End::RaiseArg(at)
        }
    };
    lua.extra().in_rust.set(inside);
    end
}

impl Machine {
    /// An empty machine.
    pub(super) fn new() -> Self {
        let extra =
            Box::new(Extra { in_rust: Cell::new(false), host: Cell::new(ptr::null_mut()), bytes: Cell::new(0) });
        // SAFETY: the allocator follows Lua's rules, and its box outlives the state, see `drop`.
        let state = unsafe { ffi::lua_newstate(allocate, ptr::from_ref(&*extra).cast_mut().cast()) };
        assert!(!state.is_null(), "a Lua state needs some kilobytes of memory");
        Machine { lua: Lua(state), extra }
    }

    /// Its main thread.
    pub(super) fn lua(&self) -> Lua {
        self.lua
    }

    /// Bytes it has allocated.
    pub(super) fn bytes(&self) -> usize {
        self.extra.bytes.get()
    }

    /// Tells functions called by Lua where their host's state is.
    pub(super) fn set_host(&self, host: *mut c_void) {
        self.extra.host.set(host);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: the state is alive, and nothing uses it after this.
        unsafe { ffi::lua_close(self.lua.0) }
    }
}

/// The libraries of Lua that a sandbox may have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Library {
    Base,
    Table,
    String,
    Math,
}

impl Lua {
    pub(super) fn extra(&self) -> &Extra {
        let mut extra = ptr::null_mut();
        // SAFETY: every state here was made by `Machine::new`, whose box lives as long as the state.
        unsafe {
            ffi::lua_getallocf(self.0, &raw mut extra);
            &*extra.cast::<Extra>()
        }
    }

    /// Opens one of Lua's own libraries.
    pub(super) fn open(self, library: Library) {
        let (name, open): (&CStr, CFunction) = match library {
            Library::Base => (c"", ffi::luaopen_base),
            Library::Table => (c"table", ffi::luaopen_table),
            Library::String => (c"string", ffi::luaopen_string),
            Library::Math => (c"math", ffi::luaopen_math),
        };
        // SAFETY: this is how these functions are to be called; no Rust value is lost if they fail.
        unsafe {
            ffi::lua_pushcclosure(self.0, open, 0);
            ffi::lua_pushstring_(self.0, name.as_ptr());
            ffi::lua_call(self.0, 1, 0);
        }
    }

    pub(super) fn top(self) -> c_int {
        // SAFETY: reads the stack's height.
        unsafe { ffi::lua_gettop(self.0) }
    }

    pub(super) fn set_top(self, index: c_int) {
        // SAFETY: callers stay within the room they have made.
        unsafe { ffi::lua_settop(self.0, index) }
    }

    pub(super) fn pop(self, n: c_int) {
        self.set_top(-n - 1);
    }

    /// Makes room for `n` more values; false when the stack has reached its limit.
    pub(super) fn room(self, n: c_int) -> bool {
        // SAFETY: grows the stack or says no.
        unsafe { ffi::lua_checkstack(self.0, n) != 0 }
    }

    pub(super) fn kind(self, index: c_int) -> c_int {
        // SAFETY: an index past the top is «none».
        unsafe { ffi::lua_type(self.0, index) }
    }

    /// The name of a value's type, as scripts see it.
    pub(super) fn kind_name(self, index: c_int) -> String {
        // SAFETY: Lua's names of types are static texts.
        unsafe { CStr::from_ptr(ffi::lua_typename(self.0, self.kind(index))) }.to_string_lossy().into_owned()
    }

    pub(super) fn is_table(self, index: c_int) -> bool {
        self.kind(index) == LUA_TTABLE
    }

    /// Replaces the function on top by `outer`, whose first upvalue it becomes.
    pub(super) fn wrap_c_function(self, outer: CFunction) {
        // SAFETY: the caller has pushed a value.
        unsafe { ffi::lua_pushcclosure(self.0, outer, 1) };
    }

    /// Whether a value is a string or a number.
    pub(super) fn is_text(self, index: c_int) -> bool {
        matches!(self.kind(index), LUA_TSTRING | LUA_TNUMBER)
    }

    pub(super) fn copy(self, index: c_int) {
        // SAFETY: the index is valid, see the module's page.
        unsafe { ffi::lua_pushvalue(self.0, index) }
    }

    pub(super) fn remove(self, index: c_int) {
        // SAFETY: as above.
        unsafe { ffi::lua_remove(self.0, index) }
    }

    pub(super) fn insert(self, index: c_int) {
        // SAFETY: as above.
        unsafe { ffi::lua_insert(self.0, index) }
    }

    pub(super) fn replace(self, index: c_int) {
        // SAFETY: as above.
        unsafe { ffi::lua_replace(self.0, index) }
    }

    pub(super) fn push_nil(self) {
        // SAFETY: callers have made room.
        unsafe { ffi::lua_pushnil(self.0) }
    }

    pub(super) fn push_number(self, n: f64) {
        // SAFETY: as above.
        unsafe { ffi::lua_pushnumber(self.0, n) }
    }

    pub(super) fn push_bool(self, value: bool) {
        // SAFETY: as above.
        unsafe { ffi::lua_pushboolean(self.0, value as c_int) }
    }

    pub(super) fn push_bytes(self, bytes: &[u8]) {
        // SAFETY: Lua copies that many bytes.
        unsafe { ffi::lua_pushlstring_(self.0, bytes.as_ptr().cast(), bytes.len()) }
    }

    pub(super) fn push_light(self, address: *const c_void) {
        // SAFETY: Lua keeps the address and never follows it.
        unsafe { ffi::lua_pushlightuserdata(self.0, address.cast_mut()) }
    }

    pub(super) fn push_table(self, array: usize, record: usize) {
        // SAFETY: sizes are hints.
        unsafe { ffi::lua_createtable(self.0, array as c_int, record as c_int) }
    }

    pub(super) fn push_function(self, function: Function) {
        self.push_light(function as *const c_void);
        // SAFETY: the address just pushed becomes the upvalue that `enter` looks at.
        unsafe { ffi::lua_pushcclosure(self.0, enter, 1) }
    }

    pub(super) fn push_c_function(self, function: CFunction) {
        // SAFETY: the type says what it must be.
        unsafe { ffi::lua_pushcclosure(self.0, function, 0) }
    }

    /// Pushes a text behind the place in a script where the running function was called.
    pub(super) fn push_text_with_place(self, text: &str) {
        self.room(3);
        // SAFETY: pushes a string; the concatenation of two strings runs no metamethod.
        unsafe {
            ffi::luaL_where(self.0, 1);
            self.push_bytes(text.as_bytes());
            ffi::lua_concat(self.0, 2);
        }
    }

    pub(super) fn bool(self, index: c_int) -> bool {
        // SAFETY: reads a value.
        unsafe { ffi::lua_toboolean(self.0, index) != 0 }
    }

    /// A number, or a string that reads as one; else 0.
    pub(super) fn number(self, index: c_int) -> f64 {
        // SAFETY: reads a value.
        unsafe { ffi::lua_tonumber(self.0, index) }
    }

    pub(super) fn is_number(self, index: c_int) -> bool {
        // SAFETY: reads a value.
        unsafe { ffi::lua_isnumber(self.0, index) != 0 }
    }

    /// The bytes of a string or a number, which becomes a string where it stands. They are Lua's: use them before the
    /// value leaves the stack.
    pub(super) fn bytes<'a>(self, index: c_int) -> Option<&'a [u8]> {
        if !self.is_text(index) {
            return None;
        }
        let mut len = 0;
        // SAFETY: the value is a string or becomes one, which stays where it is while it is on the stack.
        unsafe {
            let start = ffi::lua_tolstring(self.0, index, &raw mut len);
            Some(std::slice::from_raw_parts(start.cast(), len))
        }
    }

    pub(super) fn address(self, index: c_int) -> *mut c_void {
        // SAFETY: reads a value.
        unsafe { ffi::lua_touserdata(self.0, index) }
    }

    /// What a value is at, if it is an object.
    pub(super) fn pointer(self, index: c_int) -> *const c_void {
        // SAFETY: reads a value.
        unsafe { ffi::lua_topointer(self.0, index) }
    }

    /// Length of a string or border of a table (`#`), without metamethods.
    pub(super) fn len(self, index: c_int) -> usize {
        // SAFETY: reads a value.
        unsafe { ffi::lua_objlen(self.0, index) }
    }

    /// Replaces the key on top by its value in the table at `index`.
    pub(super) fn raw_get(self, index: c_int) {
        // SAFETY: the caller knows a table there.
        unsafe { ffi::lua_rawget_(self.0, index) }
    }

    pub(super) fn raw_get_at(self, index: c_int, n: usize) {
        // SAFETY: the caller knows a table there.
        unsafe { ffi::lua_rawgeti_(self.0, index, n as c_int) }
    }

    /// Pushes the value of a field of the table at `index`.
    pub(super) fn field(self, index: c_int, name: &str) {
        let index = self.absolute(index);
        self.push_bytes(name.as_bytes());
        self.raw_get(index);
    }

    /// Takes key and value from the top into the table at `index`. The key is neither nil nor a NaN.
    pub(super) fn raw_set(self, index: c_int) {
        debug_assert!(self.kind(-2) != LUA_TNIL);
        // SAFETY: the caller knows a table there, and a key that Lua takes.
        unsafe { ffi::lua_rawset(self.0, index) }
    }

    pub(super) fn raw_set_at(self, index: c_int, n: usize) {
        // SAFETY: the caller knows a table there.
        unsafe { ffi::lua_rawseti_(self.0, index, n as c_int) }
    }

    /// Takes the value on top into a field of the table at `index`.
    pub(super) fn set_field(self, index: c_int, name: &str) {
        let index = self.absolute(index);
        self.push_bytes(name.as_bytes());
        self.insert(-2);
        self.raw_set(index);
    }

    /// An index counted from the bottom, which stays true when more is pushed.
    pub(super) fn absolute(self, index: c_int) -> c_int {
        match index > 0 || index <= REGISTRY {
            true => index,
            false => self.top() + index + 1,
        }
    }

    /// Steps through the table at `index`: replaces the key on top by the next key and value; false at the end. The key
    /// is nil or one that came from here, and the table has not grown meanwhile.
    pub(super) fn next(self, index: c_int) -> bool {
        // SAFETY: as said.
        unsafe { ffi::lua_next(self.0, index) != 0 }
    }

    /// Pushes the metatable of a value if it has one.
    pub(super) fn metatable(self, index: c_int) -> bool {
        // SAFETY: pushes only if there is one.
        unsafe { ffi::lua_getmetatable(self.0, index) != 0 }
    }

    /// Takes the table on top as metatable of the value at `index`.
    pub(super) fn set_metatable(self, index: c_int) {
        // SAFETY: the caller has pushed a table or nil.
        unsafe { ffi::lua_setmetatable(self.0, index) };
    }

    /// Takes the table on top as environment of the function at `index`.
    pub(super) fn set_environment(self, index: c_int) {
        // SAFETY: the caller has pushed a table.
        unsafe { ffi::lua_setfenv(self.0, index) };
    }

    /// Compiles source text and pushes the function, or an error's text and returns false. Compiled code is refused:
    /// Lua does not check it, and a forged one takes over the process.
    pub(super) fn load(self, source: &[u8], name: &CStr) -> bool {
        if source.first() == Some(&0x1b) {
            self.push_bytes(b"attempt to load a binary chunk (mode is 't')");
            return false;
        }
        // SAFETY: Lua reads that many bytes; errors are caught inside.
        unsafe { ffi::luaL_loadbuffer(self.0, source.as_ptr().cast(), source.len(), name.as_ptr()) == 0 }
    }

    /// Calls the function below its `args` arguments, catching errors; `handler` is the index of an error handler or 0.
    pub(super) fn protected_call(self, args: c_int, results: c_int, handler: c_int) -> bool {
        let inside = self.extra().in_rust.replace(false);
        // SAFETY: function and arguments are on the stack; jumps end inside this call.
        let ok = unsafe { ffi::lua_pcall(self.0, args, results, handler) == 0 };
        self.extra().in_rust.set(inside);
        ok
    }

    /// Keeps the value on top in the registry, and gives it a number.
    pub(super) fn keep(self) -> c_int {
        // SAFETY: the registry is a table, and the value is on top.
        unsafe { ffi::luaL_ref(self.0, REGISTRY) }
    }

    pub(super) fn push_kept(self, number: c_int) {
        // SAFETY: reads the registry.
        unsafe { ffi::lua_rawgeti_(self.0, REGISTRY, number) }
    }

    pub(super) fn release(self, number: c_int) {
        // SAFETY: the number came from `keep`.
        unsafe { ffi::luaL_unref(self.0, REGISTRY, number) }
    }

    /// A step of the collector.
    pub(super) fn collect(self, size: c_int) {
        // SAFETY: no value has a finalizer.
        unsafe { ffi::lua_gc(self.0, ffi::LUA_GCSTEP, size) };
    }

    /// Calls `hook` after each `count` instructions of this thread and of those it makes.
    pub(super) fn hook_every(self, hook: ffi::lua_Hook, count: c_int) {
        // SAFETY: sets fields of the thread.
        unsafe { ffi::lua_sethook(self.0, Some(hook), ffi::LUA_MASKCOUNT, count) };
    }

    /// Calls `hook` at each new line, so that a script cannot go on after an error that it caught.
    pub(super) fn hook_each_line(self, hook: ffi::lua_Hook) {
        // SAFETY: sets fields of the thread.
        unsafe { ffi::lua_sethook(self.0, Some(hook), ffi::LUA_MASKLINE, 0) };
    }

    /// Calls `hook` at each new line, and after each `count` instructions.
    pub(super) fn hook_lines_and_every(self, hook: ffi::lua_Hook, count: c_int) {
        // SAFETY: sets fields of the thread.
        unsafe { ffi::lua_sethook(self.0, Some(hook), ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT, count) };
    }

    /// What the function at this level of the stack was called as.
    pub(super) fn function_name(self, level: c_int) -> Option<Vec<u8>> {
        // SAFETY: the record is filled by the two calls, its texts live as long as the function.
        unsafe {
            let mut record: ffi::lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(self.0, level, &raw mut record) == 0 {
                return None;
            }
            ffi::lua_getinfo(self.0, c"n".as_ptr(), &raw mut record);
            (!record.name.is_null()).then(|| CStr::from_ptr(record.name).to_bytes().to_vec())
        }
    }

    /// The name of the `n`th local variable, from 1, of the function at this level; its value is pushed.
    pub(super) fn local(self, level: c_int, n: c_int) -> Option<Vec<u8>> {
        // SAFETY: as above; a value is pushed only where there is a name.
        unsafe {
            let mut record: ffi::lua_Debug = std::mem::zeroed();
            if !self.room(2) || ffi::lua_getstack(self.0, level, &raw mut record) == 0 {
                return None;
            }
            let name = ffi::lua_getlocal(self.0, &raw const record, n);
            (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes().to_vec())
        }
    }

    /// Source and line of the function at this level of the stack, and whether it is C's.
    pub(super) fn place(self, level: c_int) -> Option<(Vec<u8>, i64, bool)> {
        // SAFETY: the record is filled by the two calls, its texts live as long as the function.
        unsafe {
            let mut record: ffi::lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(self.0, level, &raw mut record) == 0 {
                return None;
            }
            ffi::lua_getinfo(self.0, c"Sl".as_ptr(), &raw mut record);
            let source = CStr::from_ptr(record.source).to_bytes().to_vec();
            Some((source, i64::from(record.currentline), CStr::from_ptr(record.what) == c"C"))
        }
    }

    /// A string argument, or a number's text.
    pub(super) fn arg_bytes<'a>(self, at: c_int) -> Result<&'a [u8], Raise> {
        self.bytes(at).ok_or_else(|| self.wrong_type(at, "string"))
    }

    /// A number argument, or a string that reads as one.
    pub(super) fn arg_number(self, at: c_int) -> Result<f64, Raise> {
        match self.is_number(at) {
            true => Ok(self.number(at)),
            false => Err(self.wrong_type(at, "number")),
        }
    }

    /// A whole number, cut as C's casts cut on this machine.
    pub(super) fn arg_integer(self, at: c_int) -> Result<i64, Raise> {
        self.arg_number(at).map(|n| n as i64)
    }

    pub(super) fn arg_integer_or(self, at: c_int, default: i64) -> Result<i64, Raise> {
        match self.kind(at) {
            k if k <= LUA_TNIL => Ok(default),
            _ => self.arg_integer(at),
        }
    }

    pub(super) fn wrong_type(self, at: c_int, expected: &str) -> Raise {
        let got = if self.kind(at) < LUA_TNIL { "no value".into() } else { self.kind_name(at) };
        Raise::Arg(at, format!("{expected} expected, got {got}"))
    }
}
