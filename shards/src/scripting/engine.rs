//! A Lua machine set up for scripts, or for functions: one of each a shard, made when first needed.
//!
//! The two differ as Redis's do. Scripts find `KEYS` and `ARGV` among the globals. Functions get them as arguments, and
//! while a library loads it sees nothing but `redis.register_function` and what goes with it.

use std::ffi::c_int;
use std::ptr::NonNull;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use mlua_sys as ffi;

use super::debugger;
use super::lua::*;
use super::run::Run;
use super::store::Flags;
use super::{api, bit, cjson, cmsgpack, reply, sandbox, structs};
use crate::args::OwnedArgs;

/// After how many instructions a running script is looked at.
const HOOK_INSTRUCTIONS: c_int = 100_000;

/// How long a slow script runs at a time before its shard turns to others.
const SLICE_US: f64 = 1000.0;

/// Scripts run on a stack of their own, so that a slow one can be put aside. Memory is taken as it is touched.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// How long a library may take to load.
const LOAD_TIMEOUT_US: f64 = 500_000.0;

/// What functions that Lua calls find behind their machine.
pub(super) struct Host {
    /// The script that runs.
    pub(super) run: Option<NonNull<Run<'static>>>,
    /// The library that is being loaded.
    pub(super) load: Option<Load>,
    /// The state of `math.random`: 48 bits.
    pub(super) random: u64,
    /// Arguments of the command being called, kept for their memory.
    pub(super) args: OwnedArgs,
    /// Its reply, likewise.
    pub(super) reply: Vec<u8>,
    /// A clock, and its ticks a µs.
    pub(super) ticks: fn() -> u64,
    pub(super) ticks_per_us: f64,
    /// What scripts have set of `cjson`.
    pub(super) json: cjson::Settings,
    /// A hook was set that must be taken away after the run.
    pub(super) hooked: bool,
    /// The way out of the running script's stack, if it may be put aside.
    way_out: Option<NonNull<Yielder<(), ()>>>,
    /// When the run was begun, or last went on.
    since: u64,
}

/// What a look at a running script says.
enum Verdict {
    GoOn,
    Pause(NonNull<Yielder<(), ()>>),
    Stop(&'static str),
}

/// How a run stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It ended: with a value or, when this is false, with an error, which is on top of Lua's stack.
    Ended(bool),
    /// It is put aside; [`Engine::go_on`] takes it up again.
    Paused,
}

/// A function that a library has registered.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) name: Vec<u8>,
    pub(super) description: Option<Vec<u8>>,
    pub(super) flags: Flags,
    /// Where the machine keeps it.
    pub(super) kept: c_int,
}

/// A library on its way in.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) functions: Vec<Registered>,
    start: u64,
}

/// See the module's page.
pub(super) struct Engine {
    machine: Machine,
    host: Box<Host>,
    /// The error handler, the globals that scripts see, those behind them, and what a loading library sees, as kept.
    handler: c_int,
    globals: c_int,
    real: c_int,
    library_globals: c_int,
    globals_metatable: c_int,
    calls: u32,
    /// The script that runs, or is put aside.
    coroutine: Option<Coroutine<(), (), bool>>,
    /// The stack for the next one.
    stack: Option<DefaultStack>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(coroutine) = &mut self.coroutine {
            // SAFETY: at the server's end a script that was put aside is never taken up again, and Lua's frames cannot
            // be unwound. What lies on its stack is forgotten; nothing outside points to it, for the run it worked on
            // belongs to whoever put it aside.
            unsafe { coroutine.force_reset() };
        }
    }
}

/// The host of the machine that runs.
pub(super) fn host<'a>(lua: Lua) -> &'a mut Host {
    // SAFETY: `Engine::new` set it, and the box lives as long as the machine. No two such borrows are used in turns: a
    // function that Lua calls takes one, and nothing it calls takes another but `api::call`, which says how.
    unsafe { &mut *lua.extra().host.get().cast::<Host>() }
}

impl Engine {
    /// A machine for scripts, or for functions.
    pub(super) fn new(functions: bool, seed: u64, ticks: fn() -> u64, ticks_per_us: f64) -> Self {
        let machine = Machine::new();
        let mut host = Box::new(Host {
            run: None,
            load: None,
            random: seed & 0xffff_ffff_ffff,
            args: OwnedArgs::default(),
            reply: Vec::new(),
            ticks,
            ticks_per_us,
            json: cjson::Settings::default(),
            hooked: false,
            way_out: None,
            since: 0,
        });
        machine.set_host((&raw mut *host).cast());
        let lua = machine.lua();
        lua.room(40);
        sandbox::open(lua);
        for (name, open) in [
            ("cjson", cjson::open as fn(Lua)),
            ("cmsgpack", cmsgpack::open),
            ("struct", structs::open),
            ("bit", bit::open),
        ] {
            open(lua);
            lua.set_field(GLOBALS, name);
        }
        api::open(lua, functions);
        lua.copy(GLOBALS);
        let real = lua.keep();
        sandbox::lock(lua);
        let (mut library_globals, mut globals_metatable) = (0, 0);
        lua.copy(GLOBALS);
        if functions {
            api::open_library(lua);
            lua.push_table(0, 1);
            lua.push_function(sandbox::no_such_global);
            lua.set_field(-2, "__index");
            lua.set_metatable(-2);
            library_globals = lua.keep();
            lua.metatable(-1);
            globals_metatable = lua.keep();
        }
        let globals = lua.keep();
        lua.push_c_function(handle_error);
        let handler = lua.keep();
        lua.hook_every(hook, HOOK_INSTRUCTIONS);
        Engine {
            machine,
            host,
            handler,
            globals,
            real,
            library_globals,
            globals_metatable,
            calls: 0,
            coroutine: None,
            stack: None,
        }
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> usize {
        self.machine.bytes()
    }

    /// Compiles a script and keeps it, or says why not.
    pub(super) fn compile(&mut self, source: &[u8]) -> Result<c_int, String> {
        let lua = self.machine.lua();
        let ok = lua.load(source, c"@user_script");
        let result = match ok {
            true => Ok(lua.keep()),
            false => {
                let text = String::from_utf8_lossy(lua.bytes(-1).unwrap_or_default()).into_owned();
                lua.pop(1);
                Err(text)
            }
        };
        lua.collect(10);
        result
    }

    /// Lets go of a script or a function.
    pub(super) fn release(&mut self, kept: c_int) {
        self.machine.lua().release(kept);
    }

    /// Loads a library: what it registers, or what is wrong with it.
    pub(super) fn load(&mut self, source: &[u8]) -> Result<Vec<Registered>, String> {
        let lua = self.machine.lua();
        lua.set_top(0);
        self.reset_globals(self.library_globals);
        self.host.load = Some(Load { functions: Vec::new(), start: (self.host.ticks)() });
        let result = match lua.load(source, c"@user_function") {
            false => Err("ERR Error compiling function: ".to_owned() + &text_on_top(lua)),
            true => match lua.protected_call(0, 0, 0) {
                true => Ok(()),
                false => {
                    let text = match reply::error_of(lua, -1) {
                        Some((text, _)) => String::from_utf8_lossy(&text).into_owned(),
                        None => format!("ERR {}", text_on_top(lua)),
                    };
                    Err(format!("ERR Error registering functions: {text}"))
                }
            },
        };
        lua.set_top(0);
        self.reset_globals(self.real);
        self.unhook();
        let functions = self.host.load.take().map(|load| load.functions).unwrap_or_default();
        if result.is_err() {
            functions.iter().for_each(|function| lua.release(function.kept));
        }
        lua.collect(10);
        result.map(|()| functions)
    }

    /// Makes the globals read from the table that is kept as `behind`; a script may have changed those of its thread.
    fn reset_globals(&self, behind: c_int) {
        let lua = self.machine.lua();
        lua.push_kept(self.globals);
        lua.replace(GLOBALS);
        if self.globals_metatable != 0 {
            lua.push_kept(self.globals_metatable);
            lua.push_kept(behind);
            lua.set_field(-2, "__index");
            lua.pop(1);
        }
    }

    fn unhook(&mut self) {
        if std::mem::take(&mut self.host.hooked) {
            self.machine.lua().hook_every(hook, HOOK_INSTRUCTIONS);
        }
    }

    /// Runs a script (with `KEYS` and `ARGV` as globals) or a function (as arguments). The value that it returned, or
    /// its error, is left on top for [`Engine::finish`]. It may be put aside where `may_pause`.
    pub(super) fn call<'a>(
        &mut self,
        run: &mut Run<'_>,
        kept: c_int,
        keys: impl ExactSizeIterator<Item = &'a [u8]>,
        args: impl ExactSizeIterator<Item = &'a [u8]>,
        may_pause: bool,
    ) -> Progress {
        let debugged = run.core.debugger.is_some();
        let lua = self.machine.lua();
        lua.set_top(0);
        lua.push_kept(self.handler);
        lua.push_kept(kept);
        lua.push_kept(self.globals);
        lua.copy(-1);
        lua.replace(GLOBALS);
        lua.set_environment(-2);
        let eval = run.eval;
        push_list(lua, keys);
        if eval {
            lua.push_kept(self.real);
            lua.insert(-2);
            lua.set_field(-2, "KEYS");
            push_list(lua, args);
            lua.set_field(-2, "ARGV");
            lua.pop(1);
        } else {
            push_list(lua, args);
        }
        if debugged {
            self.host.hooked = true;
            lua.hook_lines_and_every(debugger::hook, HOOK_INSTRUCTIONS);
        }
        let stack = self.stack.take().unwrap_or_else(|| DefaultStack::new(STACK_BYTES).expect("memory for a stack"));
        let machine = lua;
        self.coroutine = Some(Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
            host(machine).way_out = may_pause.then(|| NonNull::from(yielder));
            let ok = machine.protected_call(if eval { 0 } else { 2 }, 1, 1);
            host(machine).way_out = None;
            ok
        }));
        self.go_on(run)
    }

    /// Lets the script that was begun go on with this run, which works on what is in hand now.
    pub(super) fn go_on(&mut self, run: &mut Run<'_>) -> Progress {
        let mut coroutine = self.coroutine.take().expect("a script was begun");
        self.host.since = (self.host.ticks)();
        // The run outlives the call below, after which nothing points to it until the next.
        self.host.run = Some(NonNull::from(run).cast());
        let result = coroutine.resume(());
        self.host.run = None;
        match result {
            CoroutineResult::Yield(()) => {
                self.coroutine = Some(coroutine);
                Progress::Paused
            }
            CoroutineResult::Return(ok) => {
                self.stack = Some(coroutine.into_stack());
                self.unhook();
                self.calls += 1;
                Progress::Ended(ok)
            }
        }
    }

    /// The machine's main thread, with what a run left on top.
    pub(super) fn lua(&self) -> Lua {
        self.machine.lua()
    }

    /// Ends a run: clears the stack, and collects a little from time to time.
    pub(super) fn finish(&mut self) {
        let lua = self.machine.lua();
        lua.set_top(0);
        if self.calls >= 50 {
            self.calls = 0;
            lua.collect(50);
        }
    }
}

fn push_list<'a>(lua: Lua, items: impl ExactSizeIterator<Item = &'a [u8]>) {
    lua.push_table(items.len(), 0);
    for (at, item) in items.enumerate() {
        lua.push_bytes(item);
        lua.raw_set_at(-2, at + 1);
    }
}

fn text_on_top(lua: Lua) -> String {
    String::from_utf8_lossy(lua.bytes(-1).unwrap_or(b"")).into_owned()
}

/// Makes an error a table, and notes where it was raised: for one of our own functions, where that was called.
unsafe extern "C-unwind" fn handle_error(state: *mut State) -> c_int {
    let lua = Lua(state);
    if !lua.is_table(1) {
        let text = match lua.bytes(1) {
            Some(text) => [b"ERR ", text].concat(),
            None => format!("ERR {}", lua.kind_name(1)).into_bytes(),
        };
        lua.push_table(0, 3);
        lua.push_bytes(&text);
        lua.set_field(-2, "err");
        lua.replace(1);
    }
    let mut place = lua.place(1);
    if place.as_ref().is_some_and(|(_, _, in_c)| *in_c) {
        place = lua.place(2);
    }
    if let Some((source, line, _)) = place {
        lua.push_bytes(&source);
        lua.set_field(1, "source");
        lua.push_number(line as f64);
        lua.set_field(1, "line");
    }
    lua.set_top(1);
    1
}

/// Looks from time to time whether a script may go on.
pub(super) unsafe extern "C-unwind" fn hook(state: *mut State, _: *mut ffi::lua_Debug) {
    if must_stop(Lua(state)) {
        // SAFETY: the error is on top, and nothing here needs dropping.
        unsafe { ffi::lua_error(state) };
    }
}

fn must_stop(lua: Lua) -> bool {
    let host = host(lua);
    if let Some(load) = &host.load {
        let elapsed = (host.ticks)().saturating_sub(load.start) as f64 / host.ticks_per_us;
        if elapsed > LOAD_TIMEOUT_US {
            host.hooked = true;
            lua.hook_each_line(hook);
            reply::push_error(lua, "ERR FUNCTION LOAD timeout", false);
            return true;
        }
        return false;
    }
    let mut verdict = look(lua);
    if let Verdict::Pause(way_out) = verdict {
        // Nothing is borrowed meanwhile: the host and the run are asked for anew after it.
        // SAFETY: the yielder lives as long as the stack that this runs on.
        unsafe { way_out.as_ref() }.suspend(());
        verdict = look(lua);
    }
    let Verdict::Stop(text) = verdict else { return false };
    self::host(lua).hooked = true;
    lua.hook_each_line(hook);
    reply::push_error(lua, text, false);
    true
}

/// When a debugged script rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// When it has run for long, so that its shard can turn to others.
    IfLong,
    Now,
}

/// Puts a debugged script aside, and sees how it may go on.
///
/// # Errors
/// It may not.
pub(super) fn rest(lua: Lua, when: Rest) -> Result<(), &'static str> {
    let host = host(lua);
    let elapsed = (host.ticks)().saturating_sub(host.since) as f64 / host.ticks_per_us;
    match host.way_out {
        _ if when == Rest::IfLong && elapsed <= SLICE_US => {}
        // SAFETY: as in `must_stop`.
        Some(way_out) => unsafe { way_out.as_ref() }.suspend(()),
        // Nobody can be waited for.
        None => debugger::debugger(lua).into_iter().for_each(debugger::Debugger::lose_client),
    }
    match look(lua) {
        Verdict::Stop(text) => Err(text),
        Verdict::GoOn | Verdict::Pause(_) => Ok(()),
    }
}

/// Whether a debugged script has run for as long as others may before they are slow.
pub(super) fn is_late(lua: Lua) -> bool {
    const THRESHOLD_MS: u64 = 5000;
    let Some(run) = super::api::running(lua) else { return false };
    let threshold = match run.core.config.busy_reply_threshold {
        0 => THRESHOLD_MS,
        threshold => threshold,
    };
    let host = host(lua);
    (host.ticks)().saturating_sub(run.start) as f64 / host.ticks_per_us >= threshold as f64 * 1000.0
}

/// Counts a debugged script's time from now on.
pub(super) fn begin_anew(lua: Lua) {
    let now = (host(lua).ticks)();
    super::api::running(lua).into_iter().for_each(|run| run.start = now);
}

fn look(lua: Lua) -> Verdict {
    let host = host(lua);
    let Some(mut run) = host.run else { return Verdict::GoOn };
    // SAFETY: the run is there while its script runs, and the hook is called between two instructions of it, when
    // nothing else uses it.
    let run = unsafe { run.as_mut() };
    if let Some(text) = run.look() {
        return Verdict::Stop(text);
    }
    match host.way_out {
        Some(way_out) if run.slow => {
            let elapsed = (host.ticks)().saturating_sub(host.since) as f64 / host.ticks_per_us;
            if elapsed > SLICE_US { Verdict::Pause(way_out) } else { Verdict::GoOn }
        }
        _ => Verdict::GoOn,
    }
}
