//! What the server knows of a command before it runs it: one row of the table.
//!
//! A row feeds dispatch, routing, ACL categories, `COMMAND` and `COMMAND DOCS`. Rows stand in the file of their
//! family beside the functions they name; [`super::table`] gathers them. Counterpart: Redis's `commands/*.json`.

use crate::args::Args;
use crate::commands::{CommandResult, Ctx};
use crate::message::{Answer, Question};
use crate::shard::Shard;

/// Bits of [`Command::flags`]: the meaning and the names are those of `COMMAND INFO`.
pub mod flag {
    #![allow(missing_docs)]
    pub const WRITE: u32 = 1 << 0;
    pub const READONLY: u32 = 1 << 1;
    pub const DENYOOM: u32 = 1 << 2;
    pub const ADMIN: u32 = 1 << 3;
    pub const PUBSUB: u32 = 1 << 4;
    pub const NOSCRIPT: u32 = 1 << 5;
    pub const BLOCKING: u32 = 1 << 6;
    pub const LOADING: u32 = 1 << 7;
    pub const STALE: u32 = 1 << 8;
    pub const SKIP_MONITOR: u32 = 1 << 9;
    pub const SKIP_SLOWLOG: u32 = 1 << 10;
    pub const ASKING: u32 = 1 << 11;
    pub const FAST: u32 = 1 << 12;
    pub const NO_AUTH: u32 = 1 << 13;
    pub const MAY_REPLICATE: u32 = 1 << 14;
    pub const NO_MANDATORY_KEYS: u32 = 1 << 15;
    pub const ALLOW_BUSY: u32 = 1 << 16;
    pub const NO_MULTI: u32 = 1 << 17;
    pub const MOVABLE_KEYS: u32 = 1 << 18;
    pub const NO_ASYNC_LOADING: u32 = 1 << 19;
    pub const TOUCHES_ARBITRARY_KEYS: u32 = 1 << 20;
    pub const PROTECTED: u32 = 1 << 21;
    /// A subcommand that is one only here: to the outside it is an argument of its container (`DEBUG`).
    pub const SUBCOMMAND: u32 = 1 << 22;
    /// A command that also has subcommands (`COMMAND`).
    pub const CONTAINER: u32 = 1 << 23;
    /// A command that runs a script, which may touch other keys than those among its arguments.
    pub const SCRIPT: u32 = 1 << 24;

    /// Names in the order in which `COMMAND INFO` lists them; the bits that are not here are hidden there.
    pub const NAMES: [(u32, &str); 19] = [
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (ADMIN, "admin"),
        (PUBSUB, "pubsub"),
        (NOSCRIPT, "noscript"),
        (BLOCKING, "blocking"),
        (LOADING, "loading"),
        (STALE, "stale"),
        (SKIP_MONITOR, "skip_monitor"),
        (SKIP_SLOWLOG, "skip_slowlog"),
        (ASKING, "asking"),
        (FAST, "fast"),
        (NO_AUTH, "no_auth"),
        (NO_MANDATORY_KEYS, "no_mandatory_keys"),
        (NO_ASYNC_LOADING, "no_async_loading"),
        (NO_MULTI, "no_multi"),
        (MOVABLE_KEYS, "movablekeys"),
        (ALLOW_BUSY, "allow_busy"),
    ];
}

/// Bits of ACL categories.
pub mod acl {
    #![allow(missing_docs)]
    pub const KEYSPACE: u32 = 1 << 0;
    pub const READ: u32 = 1 << 1;
    pub const WRITE: u32 = 1 << 2;
    pub const SET: u32 = 1 << 3;
    pub const SORTEDSET: u32 = 1 << 4;
    pub const LIST: u32 = 1 << 5;
    pub const HASH: u32 = 1 << 6;
    pub const STRING: u32 = 1 << 7;
    pub const BITMAP: u32 = 1 << 8;
    pub const HYPERLOGLOG: u32 = 1 << 9;
    pub const GEO: u32 = 1 << 10;
    pub const STREAM: u32 = 1 << 11;
    pub const PUBSUB: u32 = 1 << 12;
    pub const ADMIN: u32 = 1 << 13;
    pub const FAST: u32 = 1 << 14;
    pub const SLOW: u32 = 1 << 15;
    pub const BLOCKING: u32 = 1 << 16;
    pub const DANGEROUS: u32 = 1 << 17;
    pub const CONNECTION: u32 = 1 << 18;
    pub const TRANSACTION: u32 = 1 << 19;
    pub const SCRIPTING: u32 = 1 << 20;

    /// Names, in the order of `ACL CAT`.
    pub const NAMES: [(u32, &str); 21] = [
        (KEYSPACE, "keyspace"),
        (READ, "read"),
        (WRITE, "write"),
        (SET, "set"),
        (SORTEDSET, "sortedset"),
        (LIST, "list"),
        (HASH, "hash"),
        (STRING, "string"),
        (BITMAP, "bitmap"),
        (HYPERLOGLOG, "hyperloglog"),
        (GEO, "geo"),
        (STREAM, "stream"),
        (PUBSUB, "pubsub"),
        (ADMIN, "admin"),
        (FAST, "fast"),
        (SLOW, "slow"),
        (BLOCKING, "blocking"),
        (DANGEROUS, "dangerous"),
        (CONNECTION, "connection"),
        (TRANSACTION, "transaction"),
        (SCRIPTING, "scripting"),
    ];
}

/// Bits of a key specification.
pub mod key {
    #![allow(missing_docs)]
    pub const RO: u16 = 1 << 0;
    pub const RW: u16 = 1 << 1;
    pub const OW: u16 = 1 << 2;
    pub const RM: u16 = 1 << 3;
    pub const ACCESS: u16 = 1 << 4;
    pub const UPDATE: u16 = 1 << 5;
    pub const INSERT: u16 = 1 << 6;
    pub const DELETE: u16 = 1 << 7;
    pub const NOT_KEY: u16 = 1 << 8;
    pub const INCOMPLETE: u16 = 1 << 9;
    pub const VARIABLE_FLAGS: u16 = 1 << 10;

    /// Names as `COMMAND INFO` and `COMMAND GETKEYSANDFLAGS` list them.
    pub const NAMES: [(u16, &str); 11] = [
        (RO, "RO"),
        (RW, "RW"),
        (OW, "OW"),
        (RM, "RM"),
        (ACCESS, "access"),
        (UPDATE, "update"),
        (INSERT, "insert"),
        (DELETE, "delete"),
        (NOT_KEY, "not_key"),
        (INCOMPLETE, "incomplete"),
        (VARIABLE_FLAGS, "variable_flags"),
    ];
}

/// Where a key specification starts.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// At this argument.
    Index(u16),
    /// Behind this word, searched from argument `.1` (from the end when negative).
    Keyword(&'static str, i16),
    /// Only [`Command::find_keys`] knows.
    Unknown,
}

/// How the keys go on from where they start.
#[derive(Clone, Copy, Debug)]
pub enum Find {
    /// Up to `last` (counted from the start; negative from the end of the arguments), every `step`, the first
    /// `1/limit` of them when `limit` is over 1.
    Range {
        /// Last key, relative to the first, or negative from the end.
        last: i16,
        /// Distance between keys.
        step: u16,
        /// 0 or 1: all; 2: the first half (`XREAD`).
        limit: u16,
    },
    /// A count at `at`, the first key at `first`, both counted from the start.
    Count {
        /// Where the count is.
        at: u16,
        /// Where the first key is.
        first: u16,
        /// Distance between keys.
        step: u16,
    },
    /// Only [`Command::find_keys`] knows.
    Unknown,
}

/// One group of keys among the arguments.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    /// Where the group starts.
    pub begin: Begin,
    /// How it goes on.
    pub find: Find,
    /// Bits of [`key`].
    pub flags: u16,
}

impl KeySpec {
    /// The single key at argument `index`.
    pub const fn one(index: u16, flags: u16) -> Self {
        Self::range(index, 0, 1, flags)
    }

    /// Keys from `index` to `last` (relative, or negative from the end), every `step`.
    pub const fn range(index: u16, last: i16, step: u16, flags: u16) -> Self {
        KeySpec { begin: Begin::Index(index), find: Find::Range { last, step, limit: 0 }, flags }
    }

    /// A count at argument `index`, the keys right behind it.
    pub const fn counted(index: u16, flags: u16) -> Self {
        KeySpec { begin: Begin::Index(index), find: Find::Count { at: 0, first: 1, step: 1 }, flags }
    }
}

/// `group` of `COMMAND DOCS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Group {
    Generic,
    String,
    List,
    Set,
    SortedSet,
    Hash,
    PubSub,
    Transactions,
    Connection,
    Server,
    Scripting,
    HyperLogLog,
    Cluster,
    Sentinel,
    Geo,
    Stream,
    Bitmap,
}

impl Group {
    /// The name in `COMMAND DOCS`.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Hash => "hash",
            Group::PubSub => "pubsub",
            Group::Transactions => "transactions",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Scripting => "scripting",
            Group::HyperLogLog => "hyperloglog",
            Group::Cluster => "cluster",
            Group::Sentinel => "sentinel",
            Group::Geo => "geo",
            Group::Stream => "stream",
            Group::Bitmap => "bitmap",
        }
    }

    /// The ACL category that goes with a group of data commands.
    const fn category(self) -> u32 {
        match self {
            Group::Generic => acl::KEYSPACE,
            Group::String => acl::STRING,
            Group::List => acl::LIST,
            Group::Set => acl::SET,
            Group::SortedSet => acl::SORTEDSET,
            Group::Hash => acl::HASH,
            Group::PubSub => acl::PUBSUB,
            Group::Transactions => acl::TRANSACTION,
            Group::Connection => acl::CONNECTION,
            Group::Scripting => acl::SCRIPTING,
            Group::HyperLogLog => acl::HYPERLOGLOG,
            Group::Geo => acl::GEO,
            Group::Stream => acl::STREAM,
            Group::Bitmap => acl::BITMAP,
            Group::Server | Group::Cluster | Group::Sentinel => 0,
        }
    }
}

/// How a command finds the slices it works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It needs none: it runs on the connection's home shard.
    Home,
    /// Those that own its keys.
    Keys,
    /// All of them.
    All,
    /// The one that its cursor (argument 1) names.
    Cursor,
}

/// How the reply of a command that splits by key is put together from its parts' replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// A list of values, one a key: `MGET`.
    Values,
    /// The sum: `DEL`, `EXISTS`.
    Sum,
    /// `OK`; keys and values alternate: `MSET`.
    Done,
    /// Whether no key was there, and only then are the pairs written: `MSETNX`.
    IfNone,
    /// What the driver says when it has been to another server with the values: `MIGRATE`.
    Migrate,
}

impl Split {
    /// From one key to the next, in arguments.
    pub fn step(self) -> usize {
        match self {
            Split::Values | Split::Sum | Split::Migrate => 1,
            Split::Done | Split::IfNone => 2,
        }
    }
}

/// A function over slices; it sees no connection, so it can run on any shard.
pub type DataFn = fn(&mut Ctx<'_>, Args<'_>) -> CommandResult;

/// A function over the home shard and one of its clients (an index).
pub type HomeFn = fn(&mut Shard, u32, Args<'_>) -> CommandResult;

/// Calls back with the index of each key among the arguments, and bits of [`key`].
pub type FindKeys = fn(Args<'_>, &mut dyn FnMut(usize, u16));

/// What runs a command.
#[derive(Clone, Copy)]
pub enum Handler {
    /// Over keys.
    Data(DataFn),
    /// Over the connection.
    Home(HomeFn),
    /// Over the connection, after every shard has answered a question.
    Gather {
        /// What to ask, if these arguments ask anything.
        question: fn(Args<'_>) -> Option<Question>,
        /// Runs when all have answered, one answer a shard in their order; empty if nothing was asked.
        run: fn(&mut Shard, u32, Args<'_>, Vec<Answer>) -> CommandResult,
    },
    /// Nothing by itself: the next argument names a subcommand.
    Container,
}

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Command {
    /// Lower-case name; a subcommand's is `container|name`.
    pub name: &'static str,
    /// Arguments with the name: exactly this many, or at least its opposite when negative.
    pub arity: i16,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Bits of [`acl`] beyond those the flags imply.
    pub extra_categories: u32,
    /// Where its keys are.
    pub keys: &'static [KeySpec],
    /// The argument that is its one key, when that is all; 0 otherwise. The hot path's shortcut.
    pub single_key: u8,
    /// Finds keys that specifications cannot.
    pub find_keys: Option<FindKeys>,
    /// What it does with its key, where that depends on other arguments ([`key::VARIABLE_FLAGS`]).
    pub vary_flags: Option<fn(Args<'_>) -> u16>,
    /// How it finds its slices.
    pub route: Route,
    /// Whether these arguments make it need all slices though it has keys: what they name depends on data.
    pub all_slices: Option<fn(Args<'_>) -> bool>,
    /// How it splits when its keys lie on several shards; it works on lent slices if it does not.
    pub split: Option<Split>,
    /// What runs it.
    pub handler: Handler,
    /// Group in the documentation.
    pub group: Group,
    /// Version of Redis that brought it.
    pub since: &'static str,
    /// Cost, in Redis's O notation.
    pub complexity: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The arguments behind the name, in the notation of Redis's documentation.
    pub usage: &'static str,
}

impl Command {
    const fn new(name: &'static str, handler: Handler, arity: i16, flags: u32, group: Group) -> Self {
        let route = match handler {
            Handler::Data(_) => Route::All,
            _ => Route::Home,
        };
        Command {
            name,
            arity,
            flags,
            extra_categories: group.category(),
            keys: &[],
            single_key: 0,
            find_keys: None,
            vary_flags: None,
            route,
            all_slices: None,
            split: None,
            handler,
            group,
            since: "1.0.0",
            complexity: "O(1)",
            summary: "",
            usage: "",
        }
    }

    /// A command over keys; give them with [`Command::keys`], else it works on every slice.
    pub const fn data(name: &'static str, run: DataFn, arity: i16, flags: u32, group: Group) -> Self {
        Self::new(name, Handler::Data(run), arity, flags, group)
    }

    /// A command over the connection.
    pub const fn home(name: &'static str, run: HomeFn, arity: i16, flags: u32, group: Group) -> Self {
        Self::new(name, Handler::Home(run), arity, flags, group)
    }

    /// A command that asks every shard first.
    pub const fn gather(
        name: &'static str,
        question: fn(Args<'_>) -> Option<Question>,
        run: fn(&mut Shard, u32, Args<'_>, Vec<Answer>) -> CommandResult,
        arity: i16,
        flags: u32,
        group: Group,
    ) -> Self {
        Self::new(name, Handler::Gather { question, run }, arity, flags, group)
    }

    /// A name that stands for its subcommands.
    pub const fn container(name: &'static str, group: Group) -> Self {
        // The subcommands have categories, the name alone has none.
        Self::new(name, Handler::Container, -2, 0, group).only_categories(0)
    }

    /// Says where the keys are.
    pub const fn keys(mut self, keys: &'static [KeySpec]) -> Self {
        self.keys = keys;
        self.route = Route::Keys;
        if let [KeySpec { begin: Begin::Index(index), find: Find::Range { last: 0, .. }, .. }] = keys {
            self.single_key = *index as u8;
        }
        self
    }

    /// Says how to find keys that no specification describes.
    pub const fn keys_by(mut self, find: FindKeys) -> Self {
        self.find_keys = Some(find);
        self.route = Route::Keys;
        self.single_key = 0;
        self
    }

    /// Says how other arguments tell what it does with its key.
    pub const fn flags_by(mut self, flags: fn(Args<'_>) -> u16) -> Self {
        self.vary_flags = Some(flags);
        self
    }

    /// Says of which arguments it needs all slices, not those of its keys alone.
    pub const fn all_slices_if(mut self, needs_all: fn(Args<'_>) -> bool) -> Self {
        self.all_slices = Some(needs_all);
        self
    }

    /// Sets the route.
    pub const fn route(mut self, route: Route) -> Self {
        self.route = route;
        self
    }

    /// Says that it splits by key.
    pub const fn splits(mut self, split: Split) -> Self {
        self.split = Some(split);
        self
    }

    /// Adds ACL categories.
    pub const fn categories(mut self, categories: u32) -> Self {
        self.extra_categories |= categories;
        self
    }

    /// Sets the ACL categories beyond those the flags imply, where the group's own is none of them.
    pub const fn only_categories(mut self, categories: u32) -> Self {
        self.extra_categories = categories;
        self
    }

    /// Says what the command is: the version it came with, its cost, one sentence, and its arguments.
    pub const fn doc(
        mut self,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
        usage: &'static str,
    ) -> Self {
        self.since = since;
        self.complexity = complexity;
        self.summary = summary;
        self.usage = usage;
        self
    }

    /// All ACL categories, those implied by the flags included, as Redis derives them.
    pub fn categories_all(&self) -> u32 {
        let mut all = self.extra_categories;
        if self.flags & flag::WRITE != 0 {
            all |= acl::WRITE;
        }
        if self.flags & flag::READONLY != 0 && all & acl::SCRIPTING == 0 {
            all |= acl::READ;
        }
        if self.flags & flag::ADMIN != 0 {
            all |= acl::ADMIN | acl::DANGEROUS;
        }
        if self.flags & flag::PUBSUB != 0 {
            all |= acl::PUBSUB;
        }
        if self.flags & flag::BLOCKING != 0 {
            all |= acl::BLOCKING;
        }
        all | if self.flags & flag::FAST != 0 { acl::FAST } else { acl::SLOW }
    }

    /// Whether all bits of `flags` are set.
    #[inline]
    pub fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }

    /// Whether `argc` arguments fit the arity.
    #[inline]
    pub fn accepts(&self, argc: usize) -> bool {
        match self.arity {
            n if n >= 0 => argc == n as usize,
            n => argc >= n.unsigned_abs() as usize,
        }
    }

    /// Whether its next argument may name a subcommand.
    #[inline]
    pub fn is_container(&self) -> bool {
        matches!(self.handler, Handler::Container) || self.has(flag::CONTAINER)
    }

    /// The container's name, or the name of what is no subcommand.
    pub fn container_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(container, _)| container)
    }

    /// The name without its container.
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, sub)| sub)
    }

    /// Whether every count of keys among `args` is one, and as many arguments follow.
    pub fn counts_keys_rightly(&self, args: Args<'_>) -> bool {
        self.find_keys.is_some()
            || self.keys.iter().all(|spec| match (spec.find, spec.start(args)) {
                (Find::Count { at, first, step }, Some(start)) => {
                    let count = args.get(start + at as usize).and_then(crate::number::parse_i64).unwrap_or(0);
                    let room = args.len().saturating_sub(start + first as usize).div_ceil(step.max(1) as usize);
                    count > 0 && count as usize <= room
                }
                _ => true,
            })
    }

    /// Calls back with the index of each key among `args`, in order; malformed arguments yield fewer.
    pub fn for_each_key(&self, args: Args<'_>, found: &mut dyn FnMut(usize)) {
        self.for_each_key_flags(args, &mut |index, _| found(index));
    }

    /// As [`Command::for_each_key`], with the bits of the specification that found each.
    pub fn for_each_key_flags(&self, args: Args<'_>, found: &mut dyn FnMut(usize, u16)) {
        if let Some(find) = self.find_keys {
            return find(args, found);
        }
        for spec in self.keys {
            let Some(start) = spec.start(args) else { continue };
            let spec_flags = match self.vary_flags {
                Some(vary) if spec.flags & key::VARIABLE_FLAGS != 0 => vary(args),
                _ => spec.flags,
            };
            match spec.find {
                Find::Range { last, step, limit } => {
                    let last = match last {
                        n if n >= 0 => start + n as usize,
                        n if limit <= 1 => args.len().saturating_sub(n.unsigned_abs() as usize),
                        _ => start + (args.len().saturating_sub(start) / limit as usize).saturating_sub(1),
                    };
                    let mut index = start;
                    while index <= last && index < args.len() {
                        found(index, spec_flags);
                        index += step.max(1) as usize;
                    }
                }
                Find::Count { at, first, step } => {
                    let count = args.get(start + at as usize).and_then(crate::number::parse_i64).unwrap_or(0);
                    let first = start + first as usize;
                    let room = args.len().saturating_sub(first).div_ceil(step.max(1) as usize);
                    // A count beyond the arguments is a syntax error that the command itself reports.
                    if count > 0 && count as usize <= room {
                        for k in 0..count as usize {
                            found(first + k * step.max(1) as usize, spec_flags);
                        }
                    }
                }
                Find::Unknown => {}
            }
        }
    }
}

impl KeySpec {
    fn start(&self, args: Args<'_>) -> Option<usize> {
        match self.begin {
            Begin::Index(index) => Some(index as usize).filter(|i| *i < args.len()),
            Begin::Unknown => None,
            Begin::Keyword(word, from) if from >= 0 => {
                (from as usize..args.len().saturating_sub(1)).find(|i| args.is(*i, word)).map(|i| i + 1)
            }
            Begin::Keyword(word, from) => {
                let last = args.len().checked_sub(from.unsigned_abs() as usize)?;
                (1..=last).rev().find(|i| args.is(*i, word)).map(|i| i + 1).filter(|i| *i < args.len())
            }
        }
    }
}
