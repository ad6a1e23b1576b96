//! The script debugger of `SCRIPT DEBUG`.
//!
//! A debugged script runs at its client's home with the slices of all shards in hand. Before each line a [`hook`] looks
//! whether it is to stop there. While it is stopped it is put aside as a slow script is, and what its client sends are
//! commands for the debugger instead of the server, until it lets the script go on. Who needs a key waits for its end.
//!
//! With `YES` Redis forks, so that the script works on a copy and nobody else notices. There is no fork here: what it
//! writes is taken back at the session's end, and what could not be taken back is refused ([`Debugger::is_sync`]).
//! Counterpart: `ldb` in `eval.c`.

use std::ffi::c_int;

use mlua_sys as ffi;

use super::api::running;
use super::cjson::format_g;
use super::engine::{self, Rest};
use super::lua::*;
use super::reply;
use crate::client::ClientView;
use crate::quote::repr_into;

/// Breakpoints that may be set.
const MAX_BREAKPOINTS: usize = 64;

/// Bytes of values and replies that are shown, until `maxlen` says otherwise.
const MAXLEN: usize = 256;

/// How deep tables in tables are shown.
const MAX_DEPTH: usize = 10;

/// Arguments of a debugger's command, and bytes of each.
const MAX_ARGUMENTS: i64 = 1024;

/// Values that are shown of one: tables may hold each other many times over.
const MAX_VALUES: usize = 10_000;

/// Bytes that are said at a time, and what is said of more.
const MAX_LOG: usize = 1 << 20;
const TOO_MUCH: &[u8] = b"<hint> There is more, which is left out.";

/// Bytes that a client may send without a whole command among them.
const MAX_INPUT: usize = 1 << 20;

const HELP: [&str; 25] = [
    "Redis Lua debugger help:",
    "[h]elp               Show this help.",
    "[s]tep               Run current line and stop again.",
    "[n]ext               Alias for step.",
    "[c]ontinue           Run till next breakpoint.",
    "[l]ist               List source code around current line.",
    "[l]ist [line]        List source code around [line].",
    "                     line = 0 means: current position.",
    "[l]ist [line] [ctx]  In this form [ctx] specifies how many lines",
    "                     to show before/after [line].",
    "[w]hole              List all source code. Alias for 'list 1 1000000'.",
    "[p]rint              Show all the local variables.",
    "[p]rint <var>        Show the value of the specified variable.",
    "                     Can also show global vars KEYS and ARGV.",
    "[b]reak              Show all breakpoints.",
    "[b]reak <line>       Add a breakpoint to the specified line.",
    "[b]reak -<line>      Remove breakpoint from the specified line.",
    "[b]reak 0            Remove all breakpoints.",
    "[t]race              Show a backtrace.",
    "[e]val <code>        Execute some Lua code (in a different callframe).",
    "[r]edis <cmd>        Execute a Redis command.",
    "[m]axlen [len]       Trim logged Redis replies and Lua var dumps to len.",
    "                     Specifying zero as <len> means unlimited.",
    "[a]bort              Stop the execution of the script. In sync",
    "                     mode dataset changes will be retained.",
];

const HELP_OF_FUNCTIONS: [&str; 5] = [
    "",
    "Debugger functions you can call from Lua scripts:",
    "redis.debug()        Produce logs in the debugger console.",
    "redis.breakpoint()   Stop execution like if there was a breakpoint in the",
    "                     next line of code.",
];

/// Whether a client's next script is debugged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DebugMode {
    /// It runs as any other.
    #[default]
    No,
    /// What it writes is taken back.
    Undone,
    /// What it writes stays.
    Sync,
}

/// A session.
#[derive(Debug)]
pub struct Debugger {
    client: ClientView,
    sync: bool,
    lines: Vec<Vec<u8>>,
    /// The line that is about to run, from 1.
    line: i64,
    /// The next line is stopped at.
    step: bool,
    /// So it is because `redis.breakpoint()` was called.
    called: bool,
    breakpoints: Vec<i64>,
    maxlen: usize,
    hinted: bool,
    log: Vec<Vec<u8>>,
    logged: usize,
    /// What the client is to be sent.
    pub(crate) output: Vec<u8>,
    input: Vec<u8>,
    /// It has nothing to do until something comes.
    waits: bool,
    gone: bool,
}

impl Debugger {
    /// A session for a client, whose script is still to begin.
    pub(crate) fn new(client: ClientView, sync: bool) -> Self {
        Debugger {
            client,
            sync,
            lines: Vec::new(),
            line: 0,
            step: true,
            called: false,
            breakpoints: Vec::new(),
            maxlen: MAXLEN,
            hinted: false,
            log: Vec::new(),
            logged: 0,
            output: Vec::new(),
            input: Vec::new(),
            waits: false,
            gone: false,
        }
    }

    /// Whose session it is.
    pub(crate) fn client(&self) -> ClientView {
        self.client
    }

    /// Whether what the script writes stays.
    pub(crate) fn is_sync(&self) -> bool {
        self.sync
    }

    /// Shows the lines of this text.
    pub(super) fn begin(&mut self, source: &[u8]) {
        let end = source.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
        self.lines = source[..end].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    }

    /// Takes what the client has sent; says whether there is something to do.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> bool {
        self.input.extend_from_slice(bytes);
        !self.waits || !bytes.is_empty()
    }

    /// The client has gone: the script runs to its end.
    pub(crate) fn lose_client(&mut self) {
        self.gone = true;
    }

    /// Whether nothing is to be done until the client sends something.
    pub(crate) fn waits(&self) -> bool {
        self.waits && !self.gone
    }

    /// The script has ended.
    pub(crate) fn end(&mut self) {
        self.say("<endsession>");
        self.send();
    }

    fn say(&mut self, text: impl Into<Vec<u8>>) {
        let text = text.into();
        if self.logged <= MAX_LOG {
            self.logged += text.len() + 1;
            self.log.push(if self.logged <= MAX_LOG { text } else { TOO_MUCH.to_vec() });
        }
    }

    fn say_short(&mut self, mut text: Vec<u8>) {
        let trims = self.maxlen > 0 && text.len() > self.maxlen;
        if trims {
            text.truncate(self.maxlen);
            text.extend_from_slice(b" ...");
        }
        self.say(text);
        if trims && !std::mem::replace(&mut self.hinted, true) {
            self.say("<hint> The above reply was trimmed. Use 'maxlen 0' to disable trimming.");
        }
    }

    /// A command that the script is about to call.
    pub(super) fn say_call<'a>(&mut self, args: impl ExactSizeIterator<Item = &'a [u8]>) {
        const SHOWN: usize = 10;
        if !self.step {
            return;
        }
        let count = args.len();
        let mut text = b"<redis>".to_vec();
        for arg in args.take(SHOWN) {
            text.push(b' ');
            text.extend_from_slice(arg);
        }
        if count > SHOWN {
            text.extend_from_slice(format!(" ... ({} more)", count - SHOWN - 1).as_bytes());
        }
        self.say(text);
    }

    /// What the server answered.
    pub(super) fn say_reply(&mut self, reply: &[u8]) {
        if self.step {
            let mut text = b"<reply> ".to_vec();
            show_reply(reply, &mut text);
            self.say_short(text);
        }
    }

    /// Why a command was not run, or failed.
    pub(super) fn say_error(&mut self, error: &str) {
        if self.step {
            self.say(format!("<error> {error}"));
        }
    }

    fn send(&mut self) {
        self.logged = 0;
        self.output.extend_from_slice(format!("*{}\r\n", self.log.len()).as_bytes());
        for line in self.log.drain(..) {
            self.output.push(b'+');
            self.output.extend(line.into_iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
            self.output.extend_from_slice(b"\r\n");
        }
    }

    fn is_breakpoint(&self, line: i64) -> bool {
        self.breakpoints.contains(&line)
    }

    fn say_line(&mut self, line: i64) {
        let mark = match (self.line == line, self.is_breakpoint(line)) {
            (true, true) => "->#",
            (true, false) => "-> ",
            (false, true) => "  #",
            (false, false) => "   ",
        };
        let mut text = format!("{mark}{line:<3} ").into_bytes();
        let source = usize::try_from(line - 1).ok().and_then(|at| self.lines.get(at));
        text.extend_from_slice(source.map_or(b"<out of range source code line>", |source| source));
        self.say(text);
    }

    fn say_lines(&mut self, around: i64, context: i64) {
        for line in 1..=self.lines.len() as i64 {
            if around == 0 || (around - line).abs() <= context {
                self.say_line(line);
            }
        }
    }

    fn set_breakpoints(&mut self, args: &[Vec<u8>]) {
        if args.is_empty() {
            if self.breakpoints.is_empty() {
                return self.say("No breakpoints set. Use 'b <line>' to add one.");
            }
            self.say(format!("{} breakpoints set:", self.breakpoints.len()));
            return self.breakpoints.clone().into_iter().for_each(|line| self.say_line(line));
        }
        for arg in args {
            match crate::number::parse_i64(arg) {
                None => self.say([b"Invalid argument:'", &arg[..], b"'"].concat()),
                Some(0) => {
                    self.breakpoints.clear();
                    self.say("All breakpoints removed.");
                }
                Some(1..) if self.breakpoints.len() == MAX_BREAKPOINTS => self.say("Too many breakpoints set."),
                Some(line) if line > self.lines.len() as i64 => self.say("Wrong line number."),
                Some(line @ 1..) => {
                    if !self.is_breakpoint(line) {
                        self.breakpoints.push(line);
                    }
                    self.say_lines(line, 1);
                }
                Some(line) => match self.breakpoints.iter().position(|set| *set == line.saturating_neg()) {
                    Some(at) => {
                        self.breakpoints.remove(at);
                        self.say("Breakpoint removed.");
                    }
                    None => self.say("No breakpoint in the specified line."),
                },
            }
        }
    }

    fn set_maxlen(&mut self, args: &[Vec<u8>]) {
        if let [len] = args {
            self.hinted = true;
            self.maxlen = match crate::number::parse_i64(len).unwrap_or(0) {
                0 => 0,
                len => len.max(60) as usize,
            };
        }
        match self.maxlen {
            0 => self.say("<value> replies are unlimited."),
            len => self.say(format!("<value> replies are truncated at {len} bytes.")),
        }
    }

    /// Takes the next whole command off the input; what stood behind it is dropped, as in Redis.
    fn take_command(&mut self) -> Result<Option<Vec<Vec<u8>>>, &'static str> {
        let command = parse_command(&self.input)?;
        if command.is_some() {
            self.input.clear();
        }
        if self.input.len() > MAX_INPUT {
            self.input.clear();
            return Err("ERR max client buffer reached");
        }
        Ok(command)
    }
}

/// A command for the debugger at the beginning of what was sent, if all of it is there.
fn parse_command(input: &[u8]) -> Result<Option<Vec<Vec<u8>>>, &'static str> {
    const BROKEN: &str = "ERR protocol error";
    let Some(mut rest) = (match input.iter().position(|byte| *byte == b'*') {
        Some(at) => Some(&input[at..]),
        None if input.is_empty() => None,
        None => return Err(BROKEN),
    }) else {
        return Ok(None);
    };
    let number = |rest: &mut &[u8], kind: u8| -> Result<Option<usize>, &'static str> {
        let Some(first) = rest.first() else { return Ok(None) };
        if *first != kind {
            return Err(BROKEN);
        }
        let Some(end) = memchr::memmem::find(rest, b"\r\n") else { return Ok(None) };
        let number = crate::number::parse_i64(&rest[1..end]).filter(|number| (1..=MAX_ARGUMENTS).contains(number));
        *rest = &rest[end + 2..];
        number.map(|number| Some(number as usize)).ok_or(BROKEN)
    };
    let Some(count) = number(&mut rest, b'*')? else { return Ok(None) };
    let mut command = Vec::new();
    for _ in 0..count {
        let Some(len) = number(&mut rest, b'$')? else { return Ok(None) };
        if rest.len() < len + 2 {
            return Ok(None);
        }
        if &rest[len..len + 2] != b"\r\n" {
            return Err(BROKEN);
        }
        command.push(rest[..len].to_vec());
        rest = &rest[len + 2..];
    }
    Ok(Some(command))
}

/// Writes one reply for people; returns what stands behind it.
fn show_reply<'a>(reply: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some(end) = memchr::memmem::find(reply, b"\r\n") else { return b"" };
    let (line, mut rest) = (&reply[1..end], &reply[end + 2..]);
    let count = crate::number::parse_i64(line).and_then(|count| usize::try_from(count).ok());
    let (open, between, close, parts): (&[u8], &[u8], &[u8], usize) = match reply[0] {
        b'*' | b'>' => (b"[", b",", b"]", 1),
        b'~' => (b"~(", b",", b")", 1),
        b'%' => (b"{", b",", b"}", 2),
        b'$' | b'=' => {
            let Some(len) = count else {
                out.extend_from_slice(b"NULL");
                return rest;
            };
            repr_into(out, &rest[..len.min(rest.len())]);
            return rest.get(len + 2..).unwrap_or(b"");
        }
        kind => {
            match kind {
                b'+' | b'-' => repr_into(out, &reply[..end]),
                b'_' => out.extend_from_slice(b"(null)"),
                b'#' => out.extend_from_slice(if line == b"t" { b"#true" } else { b"#false" }),
                b',' => out.extend_from_slice(&[b"(double) ", line].concat()),
                _ => out.extend_from_slice(line),
            }
            return rest;
        }
    };
    let Some(count) = count else {
        out.extend_from_slice(b"NULL");
        return rest;
    };
    out.extend_from_slice(open);
    for n in 0..count {
        if n > 0 {
            out.extend_from_slice(between);
        }
        rest = show_reply(rest, out);
        if parts == 2 {
            out.extend_from_slice(b" => ");
            rest = show_reply(rest, out);
        }
    }
    out.extend_from_slice(close);
    rest
}

/// Writes the value at `index` for people.
fn show_value(lua: Lua, index: c_int, out: &mut Vec<u8>) {
    show_deep(lua, index, 0, &mut { MAX_VALUES }, out);
}

fn show_deep(lua: Lua, index: c_int, depth: usize, left: &mut usize, out: &mut Vec<u8>) {
    if *left == 0 {
        return out.extend_from_slice(b"...");
    }
    *left -= 1;
    if depth == MAX_DEPTH || !lua.room(4) {
        return out.extend_from_slice(b"<max recursion level reached! Nested table?>");
    }
    match lua.kind(index) {
        LUA_TSTRING => repr_into(out, lua.bytes(index).unwrap_or_default()),
        LUA_TBOOLEAN => out.extend_from_slice(if lua.bool(index) { b"true" } else { b"false" }),
        LUA_TNUMBER => match lua.number(index) {
            number if number.is_finite() => out.extend_from_slice(format_g(number, 6).as_bytes()),
            number if number.is_nan() => out.extend_from_slice(b"nan"),
            number => out.extend_from_slice(if number > 0.0 { b"inf" } else { b"-inf" }),
        },
        LUA_TNIL => out.extend_from_slice(b"nil"),
        LUA_TTABLE => {
            let table = lua.absolute(index);
            let (mut list, mut pairs) = (Vec::new(), Vec::new());
            let (mut is_list, mut expected) = (true, 1.0);
            lua.push_nil();
            while lua.next(table) {
                is_list &= lua.kind(-2) == LUA_TNUMBER && lua.number(-2) == expected;
                expected += 1.0;
                for text in [&mut list, &mut pairs] {
                    if !text.is_empty() {
                        text.extend_from_slice(b"; ");
                    }
                }
                pairs.push(b'[');
                show_deep(lua, -2, depth + 1, left, &mut pairs);
                pairs.extend_from_slice(b"]=");
                let start = list.len();
                show_deep(lua, -1, depth + 1, left, &mut list);
                pairs.extend_from_slice(&list[start..]);
                lua.pop(1);
                if *left == 0 {
                    lua.pop(1);
                    break;
                }
            }
            out.push(b'{');
            out.extend_from_slice(if is_list { &list } else { &pairs });
            out.push(b'}');
        }
        _ => {
            let kind = lua.kind_name(index);
            out.extend_from_slice(format!("\"{kind}@{:p}\"", lua.pointer(index)).as_bytes());
        }
    }
}

/// The session of the script that runs. Every use goes through here anew: what Lua is told to do may come here too.
pub(super) fn debugger<'a>(lua: Lua) -> Option<&'a mut Debugger> {
    running(lua)?.core.debugger.as_deref_mut()
}

/// Says something that `redis.debug` was given.
pub(super) fn say_debug(lua: Lua) {
    let mut text = Vec::new();
    for at in 1..=lua.top() {
        if at > 1 {
            text.extend_from_slice(b", ");
        }
        show_value(lua, at, &mut text);
    }
    if let Some(session) = debugger(lua) {
        let line = session.line;
        session.say([format!("<debug> line {line}: ").as_bytes(), &text].concat());
    }
}

/// Has the script stop at its next line; false when nobody debugs it.
pub(super) fn stop_soon(lua: Lua) -> bool {
    debugger(lua).map(|session| session.called = true).is_some()
}

/// Called at each line of a debugged script, and from time to time.
pub(super) unsafe extern "C-unwind" fn hook(state: *mut State, record: *mut ffi::lua_Debug) {
    // SAFETY: Lua fills the record.
    let at_line = unsafe { (*record).event } == ffi::LUA_HOOKLINE;
    if fails(Lua(state), at_line) {
        // SAFETY: the error is on top, and nothing here needs dropping.
        unsafe { ffi::lua_error(state) };
    }
}

fn fails(lua: Lua, at_line: bool) -> bool {
    match stop(lua, at_line) {
        Ok(()) => false,
        Err(text) => {
            reply::push_error(lua, text, false);
            true
        }
    }
}

/// Stops where it is to be stopped.
///
/// # Errors
/// The script must not go on.
fn stop(lua: Lua, at_line: bool) -> Result<(), &'static str> {
    engine::rest(lua, Rest::IfLong)?;
    let Some((source, line, _)) = lua.place(0) else { return Ok(()) };
    let Some(session) = debugger(lua).filter(|_| source == b"@user_script") else { return Ok(()) };
    session.line = line;
    let breaks = session.called || session.is_breakpoint(line);
    let stops = session.step || breaks;
    let late = !at_line && !stops && engine::is_late(lua);
    if !late && (!stops || !at_line) {
        return Ok(());
    }
    let reason = match () {
        () if session.called => "redis.breakpoint() called",
        () if breaks => "break point",
        () if late => "timeout reached, infinite loop?",
        () => "step over",
    };
    (session.step, session.called) = (false, false);
    session.say(format!("* Stopped at {line}, stop reason = {reason}"));
    session.say_line(line);
    session.send();
    while let Some(session) = debugger(lua) {
        if session.gone {
            session.breakpoints.clear();
            engine::begin_anew(lua);
            return match late {
                true => Err("ERR timeout during Lua debugging with client closing connection"),
                false => Ok(()),
            };
        }
        let Some(command) = session.take_command()? else {
            session.waits = true;
            engine::rest(lua, Rest::Now)?;
            debugger(lua).into_iter().for_each(|session| session.waits = false);
            continue;
        };
        if !obey(lua, &command)? {
            break;
        }
        debugger(lua).into_iter().for_each(Debugger::send);
    }
    engine::begin_anew(lua);
    Ok(())
}

/// Carries out a command; false when the script is to go on.
fn obey(lua: Lua, command: &[Vec<u8>]) -> Result<bool, &'static str> {
    let (word, args) = (command[0].to_ascii_lowercase(), &command[1..]);
    let Some(session) = debugger(lua) else { return Ok(false) };
    match &word[..] {
        b"h" | b"help" => HELP.iter().chain(&HELP_OF_FUNCTIONS).for_each(|line| session.say(*line)),
        b"s" | b"step" | b"n" | b"next" => {
            session.step = true;
            return Ok(false);
        }
        b"c" | b"continue" => return Ok(false),
        b"t" | b"trace" => trace(lua),
        b"m" | b"maxlen" => session.set_maxlen(args),
        b"b" | b"break" => session.set_breakpoints(args),
        b"e" | b"eval" => evaluate(lua, args),
        b"a" | b"abort" => return Err("ERR script aborted for user request"),
        b"r" | b"redis" if !args.is_empty() => call(lua, args),
        b"p" | b"print" => match args {
            [name] => print(lua, name),
            _ => print_all(lua),
        },
        b"l" | b"list" => {
            let number = |at: usize| args.get(at).map(|arg| crate::number::parse_i64(arg).unwrap_or(0));
            let around = number(0).filter(|line| *line > 0).unwrap_or(session.line);
            session.say_lines(around, number(1).unwrap_or(5));
        }
        b"w" | b"whole" => session.say_lines(1, 1_000_000),
        _ => session.say("<error> Unknown Redis Lua debugger command or wrong number of arguments."),
    }
    Ok(true)
}

fn trace(lua: Lua) {
    for level in 0.. {
        let Some((source, line, _)) = lua.place(level) else { break };
        if source == b"@user_script" {
            let name = lua.function_name(level).unwrap_or_else(|| b"top level".to_vec());
            let Some(session) = debugger(lua) else { return };
            session.say([if level == 0 { b"In ".to_vec() } else { b"From ".to_vec() }, name, b":".to_vec()].concat());
            session.say_line(line);
        }
    }
}

/// Shows the value on top, and takes it off.
fn say_top(lua: Lua, before: &[u8]) {
    let mut text = before.to_vec();
    show_value(lua, -1, &mut text);
    lua.pop(1);
    if let Some(session) = debugger(lua) {
        session.say_short(text);
    }
}

/// Shows the innermost local variable of this name.
fn print(lua: Lua, name: &[u8]) {
    let mut level = 0;
    while lua.place(level).is_some() {
        for n in 1.. {
            match lua.local(level, n) {
                None => break,
                Some(found) if found == name => return say_top(lua, b"<value> "),
                Some(_) => lua.pop(1),
            }
        }
        level += 1;
    }
    let shown = matches!(name, b"KEYS" | b"ARGV") && lua.load(&[b"return ", name].concat(), c"@ldb_eval");
    match shown && lua.protected_call(0, 1, 0) {
        true => say_top(lua, b"<value> "),
        false => debugger(lua).into_iter().for_each(|session| session.say("No such variable.")),
    }
}

fn print_all(lua: Lua) {
    let mut found = false;
    for n in 1.. {
        match lua.local(0, n) {
            None => break,
            Some(name) if memchr::memmem::find(&name, b"(*temporary)").is_some() => lua.pop(1),
            Some(name) => {
                found = true;
                say_top(lua, &[b"<value> ", &name[..], b" = "].concat());
            }
        }
    }
    if !found {
        debugger(lua).into_iter().for_each(|session| session.say("No local variables in the current context."));
    }
}

fn evaluate(lua: Lua, args: &[Vec<u8>]) {
    if !lua.room(4) {
        return;
    }
    let code = args.join(&b' ');
    let as_value = lua.load(&[b"return ", &code[..]].concat(), c"@ldb_eval");
    if !as_value {
        lua.pop(1);
    }
    let ok = (as_value || lua.load(&code, c"@ldb_eval")) && lua.protected_call(0, 1, 0);
    if ok {
        return say_top(lua, b"<retval> ");
    }
    let text = match reply::error_of(lua, -1) {
        Some((text, _)) => text,
        None => lua.bytes(-1).unwrap_or_default().to_vec(),
    };
    lua.pop(1);
    debugger(lua).into_iter().for_each(|session| session.say([b"<error> ", &text[..]].concat()));
}

/// Calls a command as the script would, which shows it and its reply.
fn call(lua: Lua, args: &[Vec<u8>]) {
    if !lua.room(args.len() as c_int + 3) {
        return debugger(lua).into_iter().for_each(|session| session.say("<error> max lua stack reached"));
    }
    lua.push_function(super::api::call);
    args.iter().for_each(|arg| lua.push_bytes(arg));
    debugger(lua).into_iter().for_each(|session| session.step = true);
    lua.protected_call(args.len() as c_int, 1, 0);
    debugger(lua).into_iter().for_each(|session| session.step = false);
    lua.pop(1);
}

#[cfg(test)]
mod tests {
    use crate::testing::{Conn, Value, World, request};

    const SCRIPT: &str = "local n = redis.call('INCR', KEYS[1])\nlocal t = {1, 'two', {three = true}}\nredis.debug(n, \
                          t)\nreturn n";

    fn heard(world: &mut World, conn: Conn) -> Vec<String> {
        (0..4).for_each(|_| world.end_turns());
        let lines = Value::parse_all(&world.received(conn));
        lines.iter().flat_map(|reply| reply.items().iter().map(Value::text).collect::<Vec<_>>()).collect()
    }

    fn say(world: &mut World, conn: Conn, words: &[&str]) -> Vec<String> {
        world.send(conn, &request(words));
        heard(world, conn)
    }

    fn begin(world: &mut World, conn: Conn, mode: &str) -> Vec<String> {
        assert_eq!(world.run(conn, &format!("SCRIPT DEBUG {mode}")).text(), "OK");
        say(world, conn, &["EVAL", SCRIPT, "1", "k"])
    }

    #[test]
    fn a_script_is_walked_through() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let (conn, other) = (world.connect(), world.connect());
            let first = ["* Stopped at 1, stop reason = step over", "-> 1   local n = redis.call('INCR', KEYS[1])"];
            assert_eq!(begin(&mut world, conn, "SYNC"), first);
            assert_eq!(world.run(other, "PING").text(), "PONG");
            world.send(other, &request(&["GET", "k"]));
            assert_eq!(world.received(other), b"", "keys are waited for");
            assert_eq!(say(&mut world, conn, &["p"]), ["No local variables in the current context."]);
            let next = say(&mut world, conn, &["step"]);
            assert_eq!(next[..3], ["<redis> INCR k", "<reply> 1", "* Stopped at 2, stop reason = step over"]);
            assert_eq!(say(&mut world, conn, &["print", "n"]), ["<value> 1"]);
            assert_eq!(say(&mut world, conn, &["print", "KEYS"]), ["<value> {\"k\"}"]);
            assert_eq!(say(&mut world, conn, &["print", "none"]), ["No such variable."]);
            assert_eq!(say(&mut world, conn, &["break", "4"])[1], "  #4   return n");
            assert_eq!(say(&mut world, conn, &["b", "9", "x"]), ["Wrong line number.", "Invalid argument:'x'"]);
            let stopped = say(&mut world, conn, &["continue"]);
            assert_eq!(
                stopped,
                [
                    "<debug> line 3: 1, {1; \"two\"; {[\"three\"]=true}}",
                    "* Stopped at 4, stop reason = break point",
                    "->#4   return n"
                ]
            );
            assert_eq!(say(&mut world, conn, &["print"])[..1], ["<value> n = 1"]);
            assert_eq!(say(&mut world, conn, &["eval", "#KEYS", "+", "0.5"]), ["<retval> 1.5"]);
            assert_eq!(say(&mut world, conn, &["e", "x x"]).len(), 1);
            let reply = say(&mut world, conn, &["redis", "LRANGE", "k", "0", "-1"]);
            assert!(reply[0] == "<redis> LRANGE k 0 -1" && reply[1].starts_with("<error> -WRONGTYPE"), "{reply:?}");
            assert_eq!(say(&mut world, conn, &["list", "2", "1"]).len(), 3);
            assert_eq!(say(&mut world, conn, &["whole"]).len(), 4);
            assert_eq!(say(&mut world, conn, &["trace"]), ["In top level:", "->#4   return n"]);
            assert_eq!(say(&mut world, conn, &["maxlen", "5"]), ["<value> replies are truncated at 60 bytes."]);
            let long = say(&mut world, conn, &["e", "string.rep('x', 100)"]);
            assert_eq!(long, [format!("<retval> \"{} ...", "x".repeat(50))]);
            assert_eq!(say(&mut world, conn, &["help"]).len(), 30);
            assert!(say(&mut world, conn, &["wh\0at"])[0].starts_with("<error> Unknown Redis Lua debugger command"));
            world.send(conn, &request(&["c"]));
            (0..4).for_each(|_| world.end_turns());
            assert_eq!(world.received(conn), b"*1\r\n+<endsession>\r\n:1\r\n");
            assert!(!world.is_open(conn));
            assert_eq!(world.received(other), b"$1\r\n1\r\n");
            assert!(world.shards.iter().all(|shard| shard.is_quiet()));
        }
    }

    #[test]
    fn without_sync_nothing_stays() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            world.log_effects();
            let (conn, other) = (world.connect(), world.connect());
            world.run(other, "SET k 5");
            world.effects();
            begin(&mut world, conn, "YES");
            assert_eq!(say(&mut world, conn, &["r", "SET", "k2", "x"]), ["<redis> SET k2 x", "<reply> \"+OK\""]);
            let refused = say(&mut world, conn, &["r", "FLUSHALL"]);
            assert!(refused[1].starts_with("<error> What this command does"), "{refused:?}");
            world.send(conn, &request(&["c"]));
            (0..4).for_each(|_| world.end_turns());
            assert!(world.received(conn).ends_with(b"<endsession>\r\n:6\r\n"));
            assert_eq!(world.run(other, "MGET k k2").to_string(), "[\"5\" nil]");
            assert_eq!(world.effects(), [""; 0]);
            assert!(world.shards.iter().all(|shard| shard.is_quiet()));
        }
    }

    #[test]
    fn a_session_ends_in_many_ways() {
        for shards in [1, 4] {
            let mut world = World::new(shards);
            let other = world.connect();
            // By the client's word, by broken input, by a kill, and by its going.
            let error = |world: &mut World, mode: &str, bytes: &[u8]| {
                let conn = world.connect();
                begin(world, conn, mode);
                world.send(conn, bytes);
                (0..4).for_each(|_| world.end_turns());
                String::from_utf8(world.received(conn)).unwrap()
            };
            let aborted = error(&mut world, "SYNC", &request(&["abort"]));
            assert!(aborted.contains("<endsession>\r\n-ERR script aborted for user request script: "), "{aborted}");
            for bytes in [&b"hello"[..], b"*1\r\n+x\r\n", b"*0\r\n", b"*1\r\n$2000\r\n"] {
                let broken = error(&mut world, "YES", bytes);
                assert!(broken.contains("<endsession>\r\n-ERR protocol error"), "{broken}");
            }
            let flood = error(&mut world, "YES", &[b"*2\r\n$1\r\ne\r\n$5\r\n*".to_vec(), vec![b'*'; 10]].concat());
            assert!(flood.contains("-ERR protocol error"), "{flood}");
            let conn = world.connect();
            begin(&mut world, conn, "YES");
            assert_eq!(world.run(other, "SCRIPT KILL").text(), "OK");
            (0..4).for_each(|_| world.end_turns());
            let killed = String::from_utf8(world.received(conn)).unwrap();
            assert!(killed.contains("-ERR Error running script") || killed.contains("Script killed"), "{killed}");
            for leave in [World::disconnect, World::end_input] {
                let conn = world.connect();
                world.run(other, "SET k 0");
                begin(&mut world, conn, "SYNC");
                leave(&mut world, conn);
                (0..4).for_each(|_| world.end_turns());
                assert_eq!(world.run(other, "GET k").to_string(), "\"1\"", "it ran to its end");
                assert!(!world.is_open(conn) && world.shards.iter().all(|shard| shard.clients().count() <= 1));
            }
            // What is no script at all ends the session with its error.
            let conn = world.connect();
            world.run(conn, "SCRIPT DEBUG YES");
            world.send(conn, &request(&["EVAL", "no script", "0"]));
            (0..4).for_each(|_| world.end_turns());
            let wrong = String::from_utf8(world.received(conn)).unwrap();
            assert!(wrong.starts_with("*1\r\n+<endsession>\r\n-ERR Error compiling script"), "{wrong}");
            assert_eq!(world.run(other, "SCRIPT DEBUG maybe").to_string(), "-ERR Use SCRIPT DEBUG YES/SYNC/NO");
            assert!(world.shards.iter().all(|shard| shard.is_quiet()));
        }
    }

    #[test]
    fn what_is_shown_has_a_bound() {
        let mut world = World::new(1);
        let conn = world.connect();
        begin(&mut world, conn, "YES");
        say(&mut world, conn, &["m", "0"]);
        let many = "(function() local t = {} for i = 1, 9 do local u = t t = {} for k = 1, 30 do t[k] = u end end \
                    return t end)()";
        let shown = say(&mut world, conn, &["e", many]);
        assert!((5_000..2_000_000).contains(&shown[0].len()) && shown[0].contains("..."), "{}", shown[0].len());
        let loud = say(
            &mut world,
            conn,
            &["e", "(function() for i = 1, 20000 do redis.debug(string.rep('x', 100)) end end)()"],
        );
        let bytes: usize = loud.iter().map(String::len).sum();
        assert!(bytes < 2 << 20 && loud.iter().any(|line| line.starts_with("<hint> There is more")), "{bytes}");
        assert_eq!(say(&mut world, conn, &["p", "KEYS"]), ["<value> {\"k\"}"]);
    }

    #[test]
    fn no_input_breaks_a_session() {
        const WORDS: [&str; 24] = [
            "s",
            "b",
            "l",
            "p",
            "w",
            "t",
            "m",
            "e",
            "r",
            "help",
            "1",
            "-1",
            "0",
            "3",
            "9223372036854775807",
            "-x",
            "KEYS",
            "n",
            "t[1]",
            "error({})",
            "get",
            "eval",
            "redis.call('get', 'k')",
            "redis.breakpoint()",
        ];
        let mut rng = crate::core::Rng::new(11);
        for round in 0..40 {
            let mut world = World::new(1 + round % 2);
            let (conn, other) = (world.connect(), world.connect());
            begin(&mut world, conn, if round % 3 == 0 { "SYNC" } else { "YES" });
            for _ in 0..40 {
                let word = |rng: &mut crate::core::Rng| WORDS[rng.below(WORDS.len() as u64) as usize];
                let words: Vec<&str> = (0..1 + rng.below(4)).map(|_| word(&mut rng)).collect();
                let mut bytes = request(&words);
                if rng.below(40) == 0 {
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] = rng.below(256) as u8;
                }
                world.send(conn, &bytes);
                (0..4).for_each(|_| world.end_turns());
            }
            if world.is_open(conn) {
                world.disconnect(conn);
            }
            (0..4).for_each(|_| world.end_turns());
            assert_eq!(world.run(other, "EXISTS none").integer(), 0, "round {round}");
            assert!(world.shards.iter().all(|shard| shard.is_quiet()), "round {round}");
        }
    }
}
