//! Scripts and libraries as all shards share them: their texts, flags, and what is known of the keys they touch.
//!
//! A shard looks here only when it meets a script for the first time or when a counter tells it that something has
//! changed ([`Store::scripts_epoch`], [`Store::libraries_epoch`]); the path of a script that is known takes no lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, RwLock};

use crate::quote::split_args;
use crate::router::ShardId;

/// The name of a script: 40 hexadecimal digits.
pub type Sha = [u8; 40];

/// How many scripts that came by `EVAL` are kept.
const EVAL_SCRIPTS: usize = 500;

/// The sum that names a script.
pub fn sha1hex(bytes: &[u8]) -> Sha {
    let mut name = [0; 40];
    for (pair, byte) in name.chunks_exact_mut(2).zip(sha1_smol::Sha1::from(bytes).digest().bytes()) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    name
}

/// Whether a library or a function may be called so.
pub(super) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// What a script says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// It only reads.
    pub const NO_WRITES: Flags = Flags(1);
    /// It may run when memory is full.
    pub const ALLOW_OOM: Flags = Flags(2);
    /// It may run on a replica that has lost its master.
    pub const ALLOW_STALE: Flags = Flags(4);
    /// It may not run in a cluster.
    pub const NO_CLUSTER: Flags = Flags(8);
    /// Its keys may lie in several slots of a cluster.
    pub const ALLOW_CROSS_SLOT: Flags = Flags(16);
    /// It has said nothing: a script without a first line of flags.
    pub const COMPAT: Flags = Flags(32);

    /// Names, in the order in which they are listed.
    pub const NAMES: [(Flags, &str); 5] = [
        (Flags::NO_WRITES, "no-writes"),
        (Flags::ALLOW_OOM, "allow-oom"),
        (Flags::ALLOW_STALE, "allow-stale"),
        (Flags::NO_CLUSTER, "no-cluster"),
        (Flags::ALLOW_CROSS_SLOT, "allow-cross-slot-keys"),
    ];

    /// The flag of this name.
    pub fn named(name: &[u8]) -> Option<Flags> {
        Self::NAMES.iter().find(|(_, known)| known.as_bytes() == name).map(|(flag, _)| *flag)
    }

    /// Both.
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What is known of the keys that a script touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reach {
    /// Nothing: it has not run yet.
    Unknown = 0,
    /// It stayed in the slices of the keys it declared.
    Declared = 1,
    /// It has touched others.
    All = 2,
}

/// A note of a script's [`Reach`].
#[derive(Debug, Default)]
pub struct ReachNote(AtomicU8);

impl ReachNote {
    /// What is known.
    pub fn get(&self) -> Reach {
        match self.0.load(Relaxed) {
            0 => Reach::Unknown,
            1 => Reach::Declared,
            _ => Reach::All,
        }
    }

    /// Notes what a run has shown. Who has once touched other keys is not trusted again.
    pub fn set(&self, reach: Reach) {
        if self.get() != reach && self.get() != Reach::All {
            self.0.store(reach as u8, Relaxed);
        }
    }
}

/// A script.
#[derive(Debug)]
pub struct Script {
    /// Its name.
    pub sha: Sha,
    /// Its text.
    pub body: Box<[u8]>,
    /// Where its code begins, behind a line of flags.
    pub code: usize,
    /// What it says of itself.
    pub flags: Flags,
    /// What is known of its keys.
    pub reach: ReachNote,
    /// It came by `EVAL`, and goes when many others have come; by `SCRIPT LOAD` it stays.
    by_eval: AtomicBool,
    /// When it ran last, by the monotonic clock of whoever ran it.
    used_us: AtomicU64,
    /// It is here no longer.
    pub(super) gone: AtomicBool,
}

impl Script {
    /// Notes that it runs.
    pub(super) fn used(&self, now_us: u64) {
        if self.used_us.load(Relaxed) != now_us {
            self.used_us.store(now_us, Relaxed);
        }
    }
}

/// A function of a library.
#[derive(Debug)]
pub struct FunctionInfo {
    /// Its name.
    pub name: Vec<u8>,
    /// What its author says of it.
    pub description: Option<Vec<u8>>,
    /// What it says of itself.
    pub flags: Flags,
    /// What is known of its keys.
    pub reach: ReachNote,
}

/// A library.
#[derive(Debug)]
pub struct LibraryInfo {
    /// Unique, rising.
    pub id: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// Its text, with the first line.
    pub code: Vec<u8>,
    /// Its functions, as they registered.
    pub functions: Vec<FunctionInfo>,
    /// It is here no longer.
    pub(super) gone: AtomicBool,
}

impl LibraryInfo {
    /// It was not taken in after all: the machine that has loaded it lets it go.
    pub fn drop_it(&self) {
        self.gone.store(true, Relaxed);
    }
}

/// All libraries.
#[derive(Clone, Debug, Default)]
pub struct Libraries {
    /// By name.
    pub by_name: BTreeMap<Vec<u8>, Arc<LibraryInfo>>,
    /// Each function's library and its place there, by the function's name in small letters.
    pub functions: HashMap<Vec<u8>, (Arc<LibraryInfo>, usize)>,
}

impl Libraries {
    /// Takes a library away; says whether it was there.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let Some(library) = self.by_name.remove(name) else { return false };
        library.gone.store(true, Relaxed);
        library.functions.iter().for_each(|function| {
            self.functions.remove(&function.name.to_ascii_lowercase());
        });
        true
    }

    /// Takes all libraries away.
    pub fn clear(&mut self) {
        self.by_name.values().for_each(|library| library.gone.store(true, Relaxed));
        *self = Libraries::default();
    }

    /// Adds all of these, in place of those of the same name if `replace` lets them.
    ///
    /// # Errors
    /// Redis's texts for a name that is taken; then nothing is changed.
    pub fn join(&mut self, others: &[Arc<LibraryInfo>], replace: bool) -> Result<(), String> {
        if let Some(taken) = others.iter().find(|library| !replace && self.by_name.contains_key(&library.name)) {
            return Err(format!("ERR Library {} already exists", String::from_utf8_lossy(&taken.name)));
        }
        let mut copy = self.clone();
        others.iter().for_each(|library| {
            copy.remove(&library.name);
        });
        let joined = others.iter().try_for_each(|library| copy.put(library.clone(), false));
        match joined {
            Ok(()) => *self = copy,
            Err(_) => self.by_name.values().for_each(|library| library.gone.store(false, Relaxed)),
        }
        joined
    }

    /// Adds a library, in place of one of its name if `replace` lets it.
    ///
    /// # Errors
    /// Redis's texts for a name that is taken; then nothing is changed.
    pub fn put(&mut self, library: Arc<LibraryInfo>, replace: bool) -> Result<(), String> {
        let old = self.by_name.get(&library.name).cloned();
        if old.is_some() && !replace {
            return Err(format!("ERR Library '{}' already exists", String::from_utf8_lossy(&library.name)));
        }
        self.remove(&library.name);
        self.add(library).map_err(|taken| {
            if let Some(old) = old {
                old.gone.store(false, Relaxed);
                self.add(old).expect("it was there before");
            }
            format!("ERR Function {} already exists", String::from_utf8_lossy(&taken))
        })
    }

    /// Adds a library whose name is free.
    ///
    /// # Errors
    /// A function's name that is taken.
    fn add(&mut self, library: Arc<LibraryInfo>) -> Result<(), Vec<u8>> {
        let is_taken = |name: &[u8]| self.functions.contains_key(&name.to_ascii_lowercase());
        if let Some(taken) = library.functions.iter().find(|function| is_taken(&function.name)) {
            return Err(taken.name.clone());
        }
        for (at, function) in library.functions.iter().enumerate() {
            self.functions.insert(function.name.to_ascii_lowercase(), (library.clone(), at));
        }
        self.by_name.insert(library.name.clone(), library);
        Ok(())
    }
}

/// What the first line of a library says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    /// Where the code begins: at the end of the first line, so that lines keep their numbers.
    pub(super) code: usize,
}

/// Reads the first line of a library.
pub(super) fn library_header(text: &[u8]) -> Result<Header, String> {
    if !text.starts_with(b"#!") {
        return Err("ERR Missing library metadata".into());
    }
    let invalid = || "ERR Invalid library metadata".to_owned();
    let code = memchr::memchr(b'\n', text).ok_or_else(invalid)?;
    let parts = split_args(&text[..code]).filter(|parts| !parts.is_empty()).ok_or_else(invalid)?;
    let mut name = None;
    for part in &parts[1..] {
        if part.len() < 5 || !part[..5].eq_ignore_ascii_case(b"name=") {
            return Err(format!("ERR Invalid metadata value given: {}", String::from_utf8_lossy(part)));
        }
        if name.replace(part[5..].to_vec()).is_some() {
            return Err("ERR Invalid metadata value, name argument was given multiple times".into());
        }
    }
    let name = name.ok_or("ERR Library name was not given")?;
    if !is_name(&name) {
        return Err("ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one \
                    character long"
            .into());
    }
    let engine = &parts[0][2..];
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err(format!("ERR Engine '{}' not found", String::from_utf8_lossy(engine)));
    }
    Ok(Header { name, code })
}

/// Reads the first line of a script, if it is one of flags: where the code begins, and the flags.
fn script_header(text: &[u8]) -> Result<(usize, Flags), String> {
    if !text.starts_with(b"#!") {
        return Ok((0, Flags::COMPAT));
    }
    let code = memchr::memchr(b'\n', text).ok_or("ERR Invalid script shebang")?;
    let parts = split_args(&text[..code]).filter(|parts| !parts.is_empty());
    let parts = parts.ok_or("ERR Invalid engine in script shebang")?;
    if parts[0] != b"#!lua" {
        return Err(format!("ERR Unexpected engine in script shebang: {}", String::from_utf8_lossy(&parts[0])));
    }
    let mut flags = Flags::default();
    for part in &parts[1..] {
        let Some(list) = part.strip_prefix(b"flags=") else {
            return Err(format!("ERR Unknown lua shebang option: {}", String::from_utf8_lossy(part)));
        };
        for name in list.split(|byte| *byte == b',').filter(|_| !list.is_empty()) {
            let flag = Flags::named(name);
            let unknown = || format!("ERR Unexpected flag in script shebang: {}", String::from_utf8_lossy(name));
            flags = flags.with(flag.ok_or_else(unknown)?);
        }
    }
    Ok((code, flags))
}

/// While a script is slow.
pub const BUSY_SCRIPT: &str = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";

/// While a function is slow.
pub const BUSY_FUNCTION: &str =
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";

/// A script that runs for longer than `busy-reply-threshold`, as others see it.
#[derive(Clone, Debug)]
pub struct Slow {
    /// Its sum, or the function's name.
    pub name: String,
    /// The command that started it.
    pub command: Vec<Vec<u8>>,
    /// It is a script, not a function.
    pub eval: bool,
    /// When it began, on the host's counter.
    pub start: u64,
    /// It has written, and cannot be stopped any more.
    pub wrote: bool,
}

/// One shard's slow script.
#[derive(Debug, Default)]
pub struct SlowSlot {
    /// There is one.
    pub busy: AtomicBool,
    /// It is to stop.
    pub kill: AtomicBool,
    /// What it is.
    pub slow: Mutex<Option<Slow>>,
}

/// Who has a slice in hand for long.
pub mod hold {
    #[allow(missing_docs)]
    pub const NONE: u8 = 0;
    #[allow(missing_docs)]
    pub const SCRIPT: u8 = 1;
    /// A script that somebody debugs: others wait for it instead of being refused.
    pub const DEBUGGED: u8 = 3;
    #[allow(missing_docs)]
    pub const FUNCTION: u8 = 2;
}

#[derive(Debug, Default)]
struct Scripts {
    by_sha: HashMap<Sha, Arc<Script>>,
    by_eval: usize,
    bytes: usize,
}

/// See the module's page.
#[derive(Debug, Default)]
pub struct Store {
    scripts: RwLock<Scripts>,
    scripts_epoch: AtomicU64,
    libraries: RwLock<Libraries>,
    libraries_epoch: AtomicU64,
    /// Libraries that were taken away.
    libraries_removed: AtomicU64,
    next_library: AtomicU64,
    /// Scripts dropped because too many came by `EVAL`.
    pub evicted: AtomicU64,
    /// Slow scripts, by the shard that runs them.
    pub slow: Vec<SlowSlot>,
    /// By shard, whether a slow script has its slice in hand: a [`hold`] value.
    pub held: Vec<AtomicU8>,
    /// Bytes that the shards' machines hold: for scripts, for functions.
    pub machine_bytes: Vec<[AtomicUsize; 2]>,
}

impl Store {
    /// An empty store for so many shards.
    pub fn new(shards: usize) -> Self {
        Store {
            slow: (0..shards).map(|_| SlowSlot::default()).collect(),
            held: (0..shards).map(|_| AtomicU8::new(hold::NONE)).collect(),
            machine_bytes: (0..shards).map(|_| Default::default()).collect(),
            ..Store::default()
        }
    }

    /// What a client is told whose command needs the slice of `owner`, or with `None` any, while a slow script has it.
    pub fn busy(&self, owner: Option<ShardId>) -> Option<&'static str> {
        let held = match owner {
            Some(owner) => self.held[owner as usize].load(Relaxed),
            None => {
                let refuses = |held: &u8| ![hold::NONE, hold::DEBUGGED].contains(held);
                self.held.iter().map(|held| held.load(Relaxed)).find(refuses).unwrap_or_default()
            }
        };
        match held {
            hold::NONE | hold::DEBUGGED => None,
            hold::SCRIPT => Some(BUSY_SCRIPT),
            _ => Some(BUSY_FUNCTION),
        }
    }

    /// Whether any slice is in hand for long.
    pub fn any_held(&self) -> bool {
        self.held.iter().any(|held| held.load(Relaxed) != hold::NONE)
    }

    /// Counts `SCRIPT FLUSH`.
    pub fn scripts_epoch(&self) -> u64 {
        self.scripts_epoch.load(Acquire)
    }

    /// The script of this name.
    pub fn script(&self, sha: &Sha) -> Option<Arc<Script>> {
        self.scripts.read().expect("no holder panics").by_sha.get(sha).cloned()
    }

    /// Makes a script of a text, which the caller has yet to compile and to [`Store::add`].
    ///
    /// # Errors
    /// What is wrong with its first line.
    pub fn parse(body: &[u8]) -> Result<Arc<Script>, String> {
        let (code, flags) = script_header(body)?;
        Ok(Arc::new(Script {
            sha: sha1hex(body),
            body: body.into(),
            code,
            flags,
            reach: ReachNote::default(),
            by_eval: AtomicBool::new(true),
            used_us: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        }))
    }

    /// Adds a script; gives the one that is kept, which may have been there before.
    pub fn add(&self, script: Arc<Script>, by_eval: bool, now_us: u64) -> Arc<Script> {
        let mut scripts = self.scripts.write().expect("no holder panics");
        if let Some(known) = scripts.by_sha.get(&script.sha).cloned() {
            if !by_eval && known.by_eval.swap(false, Relaxed) {
                scripts.by_eval -= 1;
            }
            return known;
        }
        script.by_eval.store(by_eval, Relaxed);
        script.used(now_us);
        if by_eval {
            if scripts.by_eval >= EVAL_SCRIPTS {
                let evals = scripts.by_sha.values().filter(|script| script.by_eval.load(Relaxed));
                let oldest = evals.min_by_key(|script| script.used_us.load(Relaxed)).map(|script| script.sha);
                if let Some(script) = oldest.and_then(|sha| scripts.by_sha.remove(&sha)) {
                    script.gone.store(true, Relaxed);
                    scripts.bytes -= script.body.len() + 40;
                    scripts.by_eval -= 1;
                    self.evicted.fetch_add(1, Relaxed);
                }
            }
            scripts.by_eval += 1;
        }
        scripts.bytes += script.body.len() + 40;
        scripts.by_sha.insert(script.sha, script.clone());
        script
    }

    /// Drops all scripts.
    pub fn flush_scripts(&self) {
        let mut scripts = self.scripts.write().expect("no holder panics");
        scripts.by_sha.values().for_each(|script| script.gone.store(true, Relaxed));
        *scripts = Scripts::default();
        self.machine_bytes.iter().for_each(|bytes| bytes[0].store(0, Relaxed));
        self.scripts_epoch.fetch_add(1, Release);
    }

    /// How many scripts there are, and the bytes of their texts.
    pub fn script_report(&self) -> (usize, usize) {
        let scripts = self.scripts.read().expect("no holder panics");
        (scripts.by_sha.len(), scripts.bytes)
    }

    /// Counts the changes of libraries.
    pub fn libraries_epoch(&self) -> u64 {
        self.libraries_epoch.load(Acquire)
    }

    /// Counts the changes that took libraries away.
    pub(super) fn libraries_removed(&self) -> u64 {
        self.libraries_removed.load(Acquire)
    }

    /// Looks at the libraries.
    pub fn with_libraries<T>(&self, look: impl FnOnce(&Libraries) -> T) -> T {
        look(&self.libraries.read().expect("no holder panics"))
    }

    /// Changes the libraries; `change` leaves them as they are when it fails.
    ///
    /// # Errors
    /// That of `change`.
    pub fn change_libraries<T>(&self, change: impl FnOnce(&mut Libraries) -> Result<T, String>) -> Result<T, String> {
        let mut libraries = self.libraries.write().expect("no holder panics");
        let result = change(&mut libraries)?;
        if libraries.by_name.is_empty() {
            // The shards drop their machines as they hear of it.
            self.machine_bytes.iter().for_each(|bytes| bytes[1].store(0, Relaxed));
        }
        self.libraries_epoch.fetch_add(1, Release);
        Ok(result)
    }

    /// Notes that a change took libraries away.
    pub(crate) fn note_removed(&self) {
        self.libraries_removed.fetch_add(1, Release);
    }

    /// A number for a new library.
    pub(super) fn next_library(&self) -> u64 {
        1 + self.next_library.fetch_add(1, Relaxed)
    }

    /// Bytes that machines hold: for scripts, for functions.
    pub fn machine_report(&self) -> [usize; 2] {
        let sum = |which: usize| self.machine_bytes.iter().map(|bytes| bytes[which].load(Relaxed)).sum();
        [sum(0), sum(1)]
    }
}
