//! Scripts and functions: Lua 5.1 inside a shard, in Redis's sandbox.
//!
//! A script is a data command. It runs on the shard that owns its keys, on that shard's own Lua machine, so scripts
//! of different shards run in parallel; over several slices it runs where they were lent. The parts:
//!
//! - [`store`]: texts and libraries, shared by all shards;
//! - [`engine`]: a Lua machine set up for scripts or functions, and [`run`], one run on it;
//! - [`api`]: the `redis` table; [`reply`]: values to and fro; [`home`]: commands over a connection;
//! - [`debugger`]: what `SCRIPT DEBUG` turns on;
//! - [`sandbox`]: what else scripts see; [`cjson`], [`cmsgpack`], [`structs`], [`bit`]: its libraries;
//! - [`lua`]: the face over Lua's C API. All `unsafe` of this folder is there, in [`engine`] and in [`sandbox`].
//!
//! **Keys that a script does not declare.** A script that was never seen runs with all slices in hand. If it touched
//! nothing but the slices of its declared keys, that is noted ([`store::Reach`]), and from then on it runs with these
//! alone, where they are. If such a run meets another key after all, it is undone and begun anew with all slices, and
//! the note is withdrawn for good. What it has written until then is kept aside key by key
//! ([`crate::db::RedisDb::keep_old`]), its effects are dropped with their group.
//! Counterparts: `script.c`, `script_lua.c`, `eval.c`, `functions.c`, `function_lua.c`.

mod api;
mod bit;
mod cjson;
mod cmsgpack;
pub mod debugger;
mod engine;
mod home;
mod lua;
mod reply;
mod run;
mod sandbox;
pub mod store;
mod structs;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::args::Args;
use crate::commands::{CommandError, CommandResult, Ctx};
use crate::core::Core;
use crate::propagate::{abandon_groups, close_groups, open_groups};
use crate::router::Owners;
use crate::shard::intents::AsIs;
use engine::{Engine, Progress};
use run::{Run, declared_owners};
use store::{Flags, FunctionInfo, Libraries, LibraryInfo, Reach, ReachNote, Script, Sha, Store};

/// Scripts that a shard keeps compiled before it looks for ones that are gone.
const COMPILED: usize = 1000;

const NO_SCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";

struct Compiled {
    script: Arc<Script>,
    /// Where the machine keeps it, once it has run here.
    kept: Option<i32>,
}

struct Loaded {
    library: Arc<LibraryInfo>,
    kept: HashMap<Vec<u8>, i32>,
}

/// A shard's part in scripting.
#[derive(Default)]
pub struct Scripting {
    eval: Option<Engine>,
    scripts: HashMap<Sha, Compiled>,
    /// By the hash of the text: names of known scripts, so that `EVAL` needs no SHA-1.
    by_text: HashMap<u64, Sha, BuildHasherDefault<AsIs>>,
    scripts_epoch: u64,
    functions: Option<Engine>,
    /// Functions that were called here, by the names they were called by.
    called: HashMap<Vec<u8>, (Arc<LibraryInfo>, usize)>,
    libraries_epoch: u64,
    libraries_removed: u64,
    /// Libraries that this shard's machine has loaded: by id, where each function is kept.
    loaded: HashMap<u64, Loaded>,
}

// SAFETY: Lua's machines are reached through `&mut` of the shard alone; a shard is moved to its thread
// before it runs, and no machine knows threads.
unsafe impl Send for Scripting {}

impl std::fmt::Debug for Scripting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scripting").field("scripts", &self.scripts.len()).finish()
    }
}

fn new_engine(core: &mut Core, functions: bool) -> Engine {
    let host = &core.shared.host;
    let (ticks, ticks_per_us) = (host.ticks(), host.ticks_per_us());
    Engine::new(functions, core.rng.next_u64(), ticks, ticks_per_us)
}

/// `EVALSHA`'s first argument as a name: 40 characters, small letters.
fn sha_of(arg: &[u8]) -> Option<Sha> {
    let mut sha: Sha = arg.try_into().ok()?;
    sha.make_ascii_lowercase();
    Some(sha)
}

impl Scripting {
    /// Forgets what `SCRIPT FLUSH` has flushed.
    fn follow_scripts(&mut self, core: &Core) {
        let epoch = core.shared.scripts.scripts_epoch();
        if self.scripts_epoch != epoch {
            self.scripts_epoch = epoch;
            self.scripts.clear();
            self.by_text.clear();
            self.eval = None;
            core.shared.scripts.machine_bytes[core.id as usize][0].store(0, Relaxed);
        }
    }

    /// The script that `EVAL` (by its text) or `EVALSHA` names, if it is known here or to others.
    fn known(&mut self, core: &Core, arg: &[u8], by_sha: bool) -> Option<Arc<Script>> {
        self.follow_scripts(core);
        let (sha, text) = match by_sha {
            true => (sha_of(arg)?, None),
            false => {
                let hash = core.hasher.hash(arg);
                if let Some(compiled) = self.by_text.get(&hash).and_then(|sha| self.scripts.get(sha)) {
                    if *compiled.script.body == *arg && !compiled.script.gone.load(Relaxed) {
                        return Some(compiled.script.clone());
                    }
                }
                (store::sha1hex(arg), Some(hash))
            }
        };
        if let Some(compiled) = self.scripts.get(&sha).filter(|compiled| !compiled.script.gone.load(Relaxed)) {
            return Some(compiled.script.clone());
        }
        let script = core.shared.scripts.script(&sha)?;
        self.remember(script.clone(), text, None);
        Some(script)
    }

    fn remember(&mut self, script: Arc<Script>, text: Option<u64>, kept: Option<i32>) {
        if self.scripts.len() >= COMPILED && self.scripts.len().is_power_of_two() {
            self.forget_gone();
        }
        if let Some(hash) = text {
            self.by_text.insert(hash, script.sha);
        }
        let before = self.scripts.insert(script.sha, Compiled { script, kept });
        if let (Some(engine), Some(kept)) = (&mut self.eval, before.and_then(|before| before.kept)) {
            engine.release(kept);
        }
    }

    fn forget_gone(&mut self) {
        let engine = &mut self.eval;
        self.scripts.retain(|_, compiled| {
            let gone = compiled.script.gone.load(Relaxed);
            if let (true, Some(engine), Some(kept)) = (gone, engine.as_mut(), compiled.kept) {
                engine.release(kept);
            }
            !gone
        });
        let scripts = &self.scripts;
        self.by_text.retain(|_, sha| scripts.contains_key(sha));
    }

    /// Compiles a text that no shard knows, and makes it known.
    fn create(&mut self, core: &mut Core, body: &[u8], by_eval: bool) -> Result<Arc<Script>, String> {
        self.follow_scripts(core);
        let script = Store::parse(body)?;
        let kept = self.compile(core, &script)?;
        let script = core.shared.scripts.add(script, by_eval, core.now_us);
        self.remember(script.clone(), Some(core.hasher.hash(body)), Some(kept));
        self.report_bytes(core);
        Ok(script)
    }

    fn compile(&mut self, core: &mut Core, script: &Script) -> Result<i32, String> {
        let engine = self.eval.get_or_insert_with(|| new_engine(core, false));
        engine
            .compile(&script.body[script.code..])
            .map_err(|text| format!("ERR Error compiling script (new function): {text}"))
    }

    /// Where this shard's machine keeps a script.
    fn kept(&mut self, core: &mut Core, script: &Arc<Script>) -> Result<i32, String> {
        if let Some(kept) = self.scripts.get(&script.sha).and_then(|compiled| compiled.kept) {
            return Ok(kept);
        }
        let kept = self.compile(core, script)?;
        self.remember(script.clone(), None, Some(kept));
        self.report_bytes(core);
        Ok(kept)
    }

    /// The machine for scripts, or for functions; it was made to compile what is to run.
    fn engine(&mut self, eval: bool) -> &mut Engine {
        let engine = if eval { &mut self.eval } else { &mut self.functions };
        engine.as_mut().expect("it has compiled something")
    }

    /// Goes back to where it was taken from: to its shard or, while a script of it is put aside, to that.
    fn rest(self: Box<Self>, core: &mut Core) {
        match &mut core.paused {
            Some(paused) if paused.scripting.is_none() => paused.scripting = Some(self),
            _ => core.scripting = Some(self),
        }
    }

    fn report_bytes(&self, core: &Core) {
        let bytes = &core.shared.scripts.machine_bytes[core.id as usize];
        bytes[0].store(self.eval.as_ref().map_or(0, Engine::bytes), Relaxed);
        bytes[1].store(self.functions.as_ref().map_or(0, Engine::bytes), Relaxed);
    }

    /// Follows changes of the libraries.
    fn follow_libraries(&mut self, core: &Core) {
        let epoch = core.shared.scripts.libraries_epoch();
        if self.libraries_epoch == epoch {
            return;
        }
        self.libraries_epoch = epoch;
        self.called.clear();
        let removed = core.shared.scripts.libraries_removed();
        if self.libraries_removed == removed {
            return;
        }
        self.libraries_removed = removed;
        let engine = &mut self.functions;
        self.loaded.retain(|_, loaded| {
            let gone = loaded.library.gone.load(Relaxed);
            if let (true, Some(engine)) = (gone, engine.as_mut()) {
                loaded.kept.values().for_each(|kept| engine.release(*kept));
            }
            !gone
        });
        if self.loaded.is_empty() {
            self.functions = None;
        }
        self.report_bytes(core);
    }

    /// A function, its library and its place there.
    fn function(&mut self, core: &Core, name: &[u8]) -> Option<(Arc<LibraryInfo>, usize)> {
        self.follow_libraries(core);
        if let Some(known) = self.called.get(name) {
            return Some(known.clone());
        }
        let found = core
            .shared
            .scripts
            .with_libraries(|libraries: &Libraries| libraries.functions.get(&*name.to_ascii_lowercase()).cloned())?;
        self.called.insert(name.to_vec(), found.clone());
        Some(found)
    }

    /// Where this shard's machine keeps a function; loads its library if it must.
    fn kept_function(&mut self, core: &mut Core, library: &Arc<LibraryInfo>, name: &[u8]) -> Result<i32, String> {
        if let Some(kept) = self.loaded.get(&library.id).and_then(|loaded| loaded.kept.get(name)) {
            return Ok(*kept);
        }
        let code = store::library_header(&library.code)?.code;
        let engine = self.functions.get_or_insert_with(|| new_engine(core, true));
        let functions = engine.load(&library.code[code..])?;
        let functions: HashMap<_, _> = functions.into_iter().map(|function| (function.name, function.kept)).collect();
        let kept = functions.get(name).copied();
        self.loaded.insert(library.id, Loaded { library: library.clone(), kept: functions });
        self.report_bytes(core);
        kept.ok_or_else(|| "ERR Function not found".into())
    }
}

/// Runs `EVAL` and its kin: by the script's text or its name; `ro` for the read-only ones.
pub fn eval(ctx: &mut Ctx<'_>, args: Args<'_>, by_sha: bool, ro: bool) -> CommandResult {
    if by_sha && args.at(1).len() != 40 {
        return Err(NO_SCRIPT.into());
    }
    let keys = crate::number::parse_i64(args.at(2)).ok_or(CommandError::NotInteger)?;
    let keys = number_of_keys(keys, args)?;
    let mut scripting = ctx.core.scripting.take().unwrap_or_default();
    let result = eval_with(&mut scripting, ctx, args, by_sha, ro, keys);
    scripting.rest(ctx.core);
    result
}

fn number_of_keys(keys: i64, args: Args<'_>) -> Result<usize, CommandError> {
    match keys {
        ..0 => Err("ERR Number of keys can't be negative".into()),
        keys if keys > args.len() as i64 - 3 => Err("ERR Number of keys can't be greater than number of args".into()),
        keys => Ok(keys as usize),
    }
}

fn eval_with(
    scripting: &mut Scripting,
    ctx: &mut Ctx<'_>,
    args: Args<'_>,
    by_sha: bool,
    ro: bool,
    keys: usize,
) -> CommandResult {
    let script = match scripting.known(ctx.core, args.at(1), by_sha) {
        Some(script) => script,
        None if by_sha => return Err(NO_SCRIPT.into()),
        None => scripting.create(ctx.core, args.at(1), true)?,
    };
    let kept = scripting.kept(ctx.core, &script)?;
    prepare(ctx.core, script.flags, ro)?;
    script.used(ctx.core.now_us);
    run_script(scripting, ctx, args, Called { what: Callee::Script(script), kept, keys, ro })?;
    scripting.report_bytes(ctx.core);
    Ok(())
}

/// Runs `FCALL` or `FCALL_RO`.
pub fn fcall(ctx: &mut Ctx<'_>, args: Args<'_>, ro: bool) -> CommandResult {
    let mut scripting = ctx.core.scripting.take().unwrap_or_default();
    let result = fcall_with(&mut scripting, ctx, args, ro);
    scripting.rest(ctx.core);
    result
}

fn fcall_with(scripting: &mut Scripting, ctx: &mut Ctx<'_>, args: Args<'_>, ro: bool) -> CommandResult {
    let name = args.at(1);
    let (library, at) = scripting.function(ctx.core, name).ok_or("ERR Function not found")?;
    let keys = crate::number::parse_i64(args.at(2)).ok_or("ERR Bad number of keys provided")?;
    let keys = number_of_keys(keys, args)?;
    let info = &library.functions[at];
    prepare(ctx.core, info.flags, ro)?;
    let kept = scripting.kept_function(ctx.core, &library, &info.name)?;
    run_script(scripting, ctx, args, Called { what: Callee::Function(library, at), kept, keys, ro })?;
    scripting.report_bytes(ctx.core);
    Ok(())
}

/// Whether a script with these flags may run now.
fn prepare(core: &Core, flags: Flags, ro: bool) -> CommandResult {
    if flags.has(Flags::COMPAT) {
        return Ok(());
    }
    if ro && !flags.has(Flags::NO_WRITES) {
        return Err("ERR Can not execute a script with write flag using *_ro command.".into());
    }
    if !flags.has(Flags::NO_WRITES) && core.shared.replication.too_few(&core.config) {
        return Err(crate::shard::dispatch::NO_REPLICAS.into());
    }
    if core.config.maxmemory != 0 && core.memory_full && !flags.has(Flags::ALLOW_OOM) && !flags.has(Flags::NO_WRITES) {
        return Err("OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'".into());
    }
    Ok(())
}

/// What is called, and how.
struct Called {
    what: Callee,
    kept: i32,
    keys: usize,
    ro: bool,
}

/// A script, or a function: its library, and its place there.
enum Callee {
    Script(Arc<Script>),
    Function(Arc<LibraryInfo>, usize),
}

impl Callee {
    fn is_script(&self) -> bool {
        matches!(self, Callee::Script(_))
    }

    fn flags(&self) -> Flags {
        match self {
            Callee::Script(script) => script.flags,
            Callee::Function(library, at) => library.functions[*at].flags,
        }
    }

    fn reach(&self) -> &ReachNote {
        match self {
            Callee::Script(script) => &script.reach,
            Callee::Function(library, at) => &library.functions[*at].reach,
        }
    }

    fn name(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Callee::Script(script) => std::str::from_utf8(&script.sha).expect("hexadecimal digits").into(),
            Callee::Function(library, at) => String::from_utf8_lossy(&library.functions[*at].name),
        }
    }
}

/// What is to be done when a run ends.
struct Frame {
    called: Callee,
    /// Groups of effects were opened.
    opened: bool,
    may_abandon: bool,
    /// It is debugged, and leaves nothing behind.
    undone: bool,
    /// Messages before it.
    posted: usize,
    /// What blocking was before it.
    denied: bool,
}

impl Frame {
    fn enter(&mut self, core: &mut Core) {
        self.posted = core.post.len();
        self.denied = std::mem::replace(&mut core.deny_blocking, true);
        core.in_script = true;
    }

    fn leave(&self, core: &mut Core) {
        core.deny_blocking = self.denied;
        core.in_script = false;
    }
}

/// A slow script that was put aside so that its shard can turn to others; the slices it has in hand stay with it.
pub struct Paused {
    scripting: Option<Box<Scripting>>,
    run: Box<Run<'static>>,
    frame: Frame,
    /// Messages that it has published.
    post: crate::pubsub::Post,
}

// SAFETY: as for `Scripting`; the run has nothing in hand while it is put aside.
unsafe impl Send for Paused {}

impl std::fmt::Debug for Paused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paused").field("script", &self.frame.called.is_script()).finish()
    }
}

impl Paused {
    /// Whether it is a script, not a function.
    pub fn is_script(&self) -> bool {
        self.frame.called.is_script()
    }
}

fn run_script(scripting: &mut Scripting, ctx: &mut Ctx<'_>, args: Args<'_>, called: Called) -> CommandResult {
    let shards = ctx.core.shards;
    let keys = args.iter_from(3).take(called.keys);
    let declared = match shards {
        1 => Owners::One(0),
        _ => declared_owners(keys.clone(), shards),
    };
    // With all slices in hand nothing can be met that is not there.
    let mut may_abandon = shards > 1 && !(0..shards as u16).all(|owner| ctx.keys.has(owner));
    let mut undone = false;
    if let (Some(session), Callee::Script(script)) = (ctx.core.debugger.as_deref_mut(), &called.what) {
        session.begin(&script.body);
        undone = !session.is_sync();
        may_abandon |= undone;
    }
    let (flags, eval) = (called.what.flags(), called.what.is_script());
    let compat = flags.has(Flags::COMPAT);
    let opened = ctx.core.effects.on && open_groups(ctx.core, &mut ctx.keys);
    if may_abandon {
        let hasher = ctx.core.hasher.clone();
        ctx.keys.dbs(ctx.client.db).for_each(|db| db.keep_old(&hasher));
    }
    let mut client = ctx.client;
    client.resp = 2;
    let Called { what, kept, ro, .. } = called;
    let mut frame = Frame { called: what, opened, may_abandon, undone, posted: 0, denied: false };
    frame.enter(ctx.core);
    let name = frame.called.name();
    let mut run = Box::new(Run {
        // SAFETY: the run ends, or is put aside and its hand emptied, before this function returns.
        core: unsafe { run::Hand::of(ctx.core) },
        keys: ctx.keys.again(),
        client,
        identity: Some((&name, args)),
        eval,
        read_only: ro || (!compat && flags.has(Flags::NO_WRITES)),
        allow_oom: !compat && flags.has(Flags::ALLOW_OOM),
        repeated: crate::propagate::target::BOTH,
        wrote: false,
        abandoned: false,
        may_abandon,
        undone,
        strayed: false,
        declared,
        killed: false,
        start: ctx.core.shared.host.ticks()(),
        slow: false,
    });
    if run.core.debugger.is_some() {
        run.note_debugged();
    }
    let engine = scripting.engine(eval);
    let progress = engine.call(&mut run, kept, keys, args.iter_from(3 + called.keys), ctx.core.may_pause);
    match progress {
        Progress::Ended(ok) => {
            run.end();
            let ended = Ended::of(&run, ok);
            drop(run);
            drop(name);
            end_run(engine, ctx, &frame, &ended)
        }
        Progress::Paused => {
            let run = run.put_aside();
            drop(name);
            put_aside(ctx, run, frame);
            Err(CommandError::NoReply)
        }
    }
}

fn put_aside(ctx: &mut Ctx<'_>, run: Box<Run<'static>>, frame: Frame) {
    frame.leave(ctx.core);
    let post = ctx.core.post.split_off(frame.posted);
    ctx.no_effect();
    ctx.core.paused = Some(Box::new(Paused { scripting: None, run, frame, post }));
}

/// Lets the script of `paused` go on for a while, on the slices that it had; its reply goes to `ctx`. It may be put
/// aside again.
pub(crate) fn go_on(ctx: &mut Ctx<'_>, paused: Paused) -> CommandResult {
    let Paused { scripting, mut run, mut frame, post } = paused;
    let mut scripting = scripting.expect("it was put aside with its machine");
    frame.enter(ctx.core);
    ctx.core.post.append(post);
    // SAFETY: the run ends, or is put aside and its hands emptied, before this function returns.
    unsafe { run.take_up(ctx.core, &mut ctx.keys) };
    let engine = scripting.engine(frame.called.is_script());
    let result = match engine.go_on(&mut run) {
        Progress::Ended(ok) => {
            run.end();
            let ended = Ended::of(&run, ok);
            drop(run);
            end_run(engine, ctx, &frame, &ended)
        }
        Progress::Paused => {
            put_aside(ctx, run.put_aside(), frame);
            Err(CommandError::NoReply)
        }
    };
    scripting.rest(ctx.core);
    result
}

/// What a run leaves behind.
struct Ended {
    ok: bool,
    abandoned: bool,
    strayed: bool,
    resp: u8,
}

impl Ended {
    fn of(run: &Run<'_>, ok: bool) -> Self {
        Ended { ok, abandoned: run.abandoned, strayed: run.strayed, resp: run.client.resp }
    }
}

/// Ends a run: undoes it if it was given up, else writes its reply.
fn end_run(engine: &mut Engine, ctx: &mut Ctx<'_>, frame: &Frame, ended: &Ended) -> CommandResult {
    frame.leave(ctx.core);
    let abandoned = ended.abandoned;
    let undone = abandoned || frame.undone;
    if frame.may_abandon {
        let db = ctx.client.db;
        ctx.keys.dbs(db).for_each(|db| db.end_keeping(undone));
    }
    match undone {
        true if frame.opened => abandon_groups(&mut ctx.keys),
        false if frame.opened => close_groups(ctx.core, &mut ctx.keys),
        _ => {}
    }
    ctx.no_effect();
    let reach = frame.called.reach();
    if undone {
        ctx.core.post.truncate(frame.posted);
    }
    if abandoned {
        engine.finish();
        reach.set(Reach::All);
        ctx.core.run_script_again = true;
        return Err(CommandError::NoReply);
    }
    if ctx.core.shards > 1 {
        reach.set(if ended.strayed { Reach::All } else { Reach::Declared });
    }
    let lua = engine.lua();
    let result = match ended.ok {
        true => match reply::error_of(lua, -1) {
            Some((text, counted)) => Err(error(&text, counted)),
            None => {
                reply::write(lua, &mut ctx.reply, ended.resp);
                Ok(())
            }
        },
        false => Err(run_error(lua, &frame.called.name())),
    };
    engine.finish();
    result
}

fn error(text: &[u8], counted: bool) -> CommandError {
    let text = String::from_utf8_lossy(text).into_owned();
    match counted {
        true => CommandError::Counted(text.into()),
        false => CommandError::Text(text.into()),
    }
}

/// The error of a script that failed, on top.
fn run_error(lua: lua::Lua, name: &str) -> CommandError {
    let Some((mut text, counted)) = reply::error_of(lua, -1) else {
        let text = match lua.bytes(-1) {
            Some(text) => String::from_utf8_lossy(&text[..text.len().min(100)]).into_owned(),
            None => "execution failure".into(),
        };
        return format!("ERR Error running script {name}, {text}").into();
    };
    lua.field(-1, "source");
    lua.field(-2, "line");
    if let (Some(source), Some(line)) = (lua.bytes(-2), lua.bytes(-1)) {
        text.extend_from_slice(format!(" script: {name}, on ").as_bytes());
        text.extend_from_slice(source);
        text.extend_from_slice(&[b":", line, b"."].concat());
    }
    error(&text, counted)
}

/// Whether a command of this family may write: unless it is a read-only form, or its script says that it does not.
pub(crate) fn may_write(core: &mut Core, name: &str, args: Args<'_>) -> bool {
    if name.ends_with("_ro") {
        return false;
    }
    let mut scripting = core.scripting.take().unwrap_or_default();
    let flags = match name {
        "eval" => match scripting.known(core, args.at(1), false) {
            Some(script) => Some(script.flags),
            None => Store::parse(args.at(1)).ok().map(|script| script.flags),
        },
        "evalsha" => scripting.known(core, args.at(1), true).map(|script| script.flags),
        _ => scripting.function(core, args.at(1)).map(|(library, at)| library.functions[at].flags),
    };
    core.scripting = Some(scripting);
    flags.is_none_or(|flags| flags.has(Flags::COMPAT) || !flags.has(Flags::NO_WRITES))
}

/// What is known of the keys that a command of this family touches beyond those it declares.
pub(crate) fn reach(core: &mut Core, name: &str, args: Args<'_>) -> Reach {
    let mut scripting = core.scripting.take().unwrap_or_default();
    let reach = match name {
        "eval" | "eval_ro" => scripting.known(core, args.at(1), false).map(|script| script.reach.get()),
        "evalsha" | "evalsha_ro" => {
            // A name that nobody knows is an error wherever it is looked for.
            Some(scripting.known(core, args.at(1), true).map_or(Reach::Declared, |script| script.reach.get()))
        }
        _ => {
            let function = scripting.function(core, args.at(1));
            Some(function.map_or(Reach::Declared, |(library, at)| library.functions[at].reach.get()))
        }
    };
    core.scripting = Some(scripting);
    reach.unwrap_or(Reach::Unknown)
}

/// `SCRIPT LOAD`.
///
/// # Errors
/// What is wrong with the text.
pub fn load_script(core: &mut Core, body: &[u8]) -> Result<Sha, String> {
    let mut scripting = core.scripting.take().unwrap_or_default();
    let result = match scripting.known(core, body, false) {
        Some(script) => Ok(core.shared.scripts.add(script, false, core.now_us).sha),
        None => scripting.create(core, body, false).map(|script| script.sha),
    };
    core.scripting = Some(scripting);
    result
}

/// Drops what has been flushed; called from time to time.
pub(crate) fn cron(core: &mut Core) {
    if let Some(mut scripting) = core.scripting.take() {
        scripting.follow_scripts(core);
        scripting.follow_libraries(core);
        core.scripting = Some(scripting);
    }
}

/// Makes a library of a text: runs it, and sees what it registers. One of its name may be there only with `replace`.
///
/// # Errors
/// What is wrong with it.
pub fn make_library(core: &mut Core, code: &[u8], replace: bool) -> Result<Arc<LibraryInfo>, String> {
    let header = store::library_header(code)?;
    if !replace && core.shared.scripts.with_libraries(|libraries| libraries.by_name.contains_key(&header.name)) {
        return Err(format!("ERR Library '{}' already exists", String::from_utf8_lossy(&header.name)));
    }
    let mut scripting = core.scripting.take().unwrap_or_default();
    scripting.follow_libraries(core);
    let engine = scripting.functions.get_or_insert_with(|| new_engine(core, true));
    let result = engine.load(&code[header.code..]);
    let result = result.and_then(|functions| match functions.is_empty() {
        true => Err("ERR No functions registered".into()),
        false => Ok(functions),
    });
    let result = result.map(|functions| {
        let id = core.shared.scripts.next_library();
        let kept = functions.iter().map(|function| (function.name.clone(), function.kept)).collect();
        let functions = functions
            .into_iter()
            .map(|function| FunctionInfo {
                name: function.name,
                description: function.description,
                flags: function.flags,
                reach: ReachNote::default(),
            })
            .collect();
        let library = Arc::new(LibraryInfo {
            id,
            name: header.name,
            code: code.to_vec(),
            functions,
            gone: AtomicBool::new(false),
        });
        scripting.loaded.insert(id, Loaded { library: library.clone(), kept });
        library
    });
    scripting.report_bytes(core);
    core.scripting = Some(scripting);
    result
}
