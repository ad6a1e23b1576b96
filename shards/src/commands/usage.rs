//! The arguments of a command, read from the one line that describes them.
//!
//! A row's `usage` is written as in Redis's documentation: `key value [NX | XX] [EX seconds | KEEPTTL]`. Words in
//! capitals are typed as they are, others stand for a value; `[…]` may be left out, `<…>` holds a choice together, `|`
//! separates what is to be chosen from, and `x [x ...]` may be repeated. [`parse`] makes the tree of it that
//! `COMMAND DOCS` shows and that `redis-cli` draws its hints from. Redis keeps such trees by hand
//! (`commands/*.json`), the line is drawn from them; here it is the other way round, and a test draws every line again.

use super::{Command, Group};

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ArgKind {
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

impl ArgKind {
    /// The name in `COMMAND DOCS`.
    pub fn name(self) -> &'static str {
        match self {
            ArgKind::String => "string",
            ArgKind::Integer => "integer",
            ArgKind::Double => "double",
            ArgKind::Key => "key",
            ArgKind::Pattern => "pattern",
            ArgKind::UnixTime => "unix-time",
            ArgKind::PureToken => "pure-token",
            ArgKind::OneOf => "oneof",
            ArgKind::Block => "block",
        }
    }
}

/// One argument, or several that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub kind: ArgKind,
    /// The word that stands before it, or that it consists of.
    pub token: Option<String>,
    /// Whether it may be left out.
    pub optional: bool,
    /// Whether it may be repeated.
    pub multiple: bool,
    /// Whether its word is repeated with it.
    pub multiple_token: bool,
    /// The key specification it belongs to.
    pub key_spec: Option<usize>,
    /// Of a choice or a block: its parts.
    pub args: Vec<Argument>,
}

/// The line as it stands, before it means anything.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Word(String),
    /// `[…]`, its alternatives.
    Optional(Vec<Vec<Node>>),
    /// `<…>`, its alternatives.
    Choice(Vec<Vec<Node>>),
    /// `x [x ...]`.
    Many(Vec<Node>),
}

struct Reader<'a> {
    words: std::iter::Peekable<std::vec::IntoIter<&'a str>>,
}

impl<'a> Reader<'a> {
    fn new(line: &'a str) -> Self {
        let mut words = Vec::new();
        for mut word in line.split_whitespace() {
            let mut closing = Vec::new();
            while let Some(rest) = word.strip_prefix(['[', '<']) {
                words.push(&word[..1]);
                word = rest;
            }
            while let Some(rest) = word.strip_suffix([']', '>']) {
                closing.push(&word[word.len() - 1..]);
                word = rest;
            }
            if !word.is_empty() {
                words.push(word);
            }
            words.extend(closing.into_iter().rev());
        }
        Reader { words: words.into_iter().peekable() }
    }

    /// Alternatives, up to the closing bracket or the end.
    fn alternatives(&mut self) -> Vec<Vec<Node>> {
        let mut all = vec![Vec::new()];
        while let Some(word) = self.words.next() {
            let node = match word {
                "|" => {
                    all.push(Vec::new());
                    continue;
                }
                "]" | ">" => break,
                "[" => Node::Optional(self.alternatives()),
                "<" => Node::Choice(self.alternatives()),
                word => Node::Word(word.to_string()),
            };
            let list = all.last_mut().expect("never empty");
            match repeated(&node, list) {
                Some(from) => {
                    let body = list.split_off(from);
                    list.push(Node::Many(body));
                }
                None => list.push(node),
            }
        }
        all
    }
}

/// Where in `before` the nodes start that `node` repeats: `[x y ...]` behind `x y`.
fn repeated(node: &Node, before: &[Node]) -> Option<usize> {
    let Node::Optional(alternatives) = node else { return None };
    let [list] = alternatives.as_slice() else { return None };
    let (last, body) = list.split_last()?;
    let from = before.len().checked_sub(body.len())?;
    (*last == Node::Word("...".into()) && !body.is_empty() && before[from..] == *body).then_some(from)
}

/// Words that are typed as they are.
fn is_token(word: &str) -> bool {
    !word.chars().any(|c| c.is_lowercase()) && word.chars().any(|c| c.is_uppercase())
        || word == "*"
        || word == "~"
        || word == "="
}

struct Builder<'a> {
    row: &'a Command,
    keys: usize,
}

/// The arguments of a row.
pub fn parse(row: &Command) -> Vec<Argument> {
    let alternatives = Reader::new(row.usage).alternatives();
    let mut builder = Builder { row, keys: 0 };
    match alternatives.as_slice() {
        [list] => builder.list(list),
        _ => vec![builder.choice(&alternatives)],
    }
}

fn leaf(name: &str, kind: ArgKind) -> Argument {
    Argument {
        name: name.into(),
        kind,
        token: None,
        optional: false,
        multiple: false,
        multiple_token: false,
        key_spec: None,
        args: Vec::new(),
    }
}

impl Builder<'_> {
    fn list(&mut self, nodes: &[Node]) -> Vec<Argument> {
        let mut args = Vec::new();
        let mut i = 0;
        while i < nodes.len() {
            match &nodes[i] {
                Node::Word(word) if is_token(word) => {
                    // The values behind it are its own, up to the next word in capitals or bracket.
                    let values = nodes[i + 1..].iter().take_while(|node| is_value(node)).count();
                    let group = values == 0 && matches!(nodes.get(i + 1), Some(Node::Choice(_)));
                    let end = i + 1 + if group { 1 } else { values };
                    args.push(self.with_token(word, &nodes[i + 1..end]));
                    i = end;
                    continue;
                }
                Node::Word(word) => args.push(self.value(word)),
                Node::Optional(alternatives) => {
                    let mut arg = self.choice(alternatives);
                    arg.optional = true;
                    args.push(arg);
                }
                Node::Choice(alternatives) => args.push(self.choice(alternatives)),
                Node::Many(body) => args.push(self.many(body)),
            }
            i += 1;
        }
        args
    }

    fn with_token(&mut self, word: &str, values: &[Node]) -> Argument {
        let mut arg = match values {
            [] => leaf(&word.to_lowercase(), ArgKind::PureToken),
            values => {
                let mut args = self.list(values);
                match args.len() {
                    1 => args.remove(0),
                    _ => block(args, word.to_lowercase()),
                }
            }
        };
        if arg.kind == ArgKind::OneOf {
            arg.name = word.to_lowercase();
        }
        arg.token = Some(word.to_string());
        arg
    }

    fn many(&mut self, body: &[Node]) -> Argument {
        let mut args = self.list(body);
        let mut arg = match args.len() {
            1 => args.remove(0),
            _ => {
                let name = joined(&args, "-");
                block(args, name)
            }
        };
        arg.multiple = true;
        arg.multiple_token = arg.token.is_some();
        arg
    }

    fn choice(&mut self, alternatives: &[Vec<Node>]) -> Argument {
        let mut parts: Vec<Argument> = alternatives
            .iter()
            .map(|list| {
                let mut args = self.list(list);
                match args.len() {
                    1 => args.remove(0),
                    _ => {
                        let name = joined(&args, "-");
                        block(args, name)
                    }
                }
            })
            .collect();
        match parts.len() {
            1 => parts.remove(0),
            _ => {
                let name = joined(&parts, "-or-");
                Argument { args: parts, ..leaf(&name, ArgKind::OneOf) }
            }
        }
    }

    fn value(&mut self, name: &str) -> Argument {
        let kind = self.kind(name);
        let mut arg = leaf(name, kind);
        if kind == ArgKind::Key {
            arg.key_spec = Some(self.keys.min(self.row.keys.len() - 1));
            self.keys += 1;
        }
        arg
    }

    fn kind(&self, name: &str) -> ArgKind {
        const INTEGERS: [&str; 34] = [
            "seconds",
            "milliseconds",
            "count",
            "offset",
            "index",
            "index1",
            "index2",
            "start",
            "end",
            "stop",
            "decrement",
            "numkeys",
            "cursor",
            "timeout",
            "db",
            "destination-db",
            "len",
            "min-match-len",
            "protover",
            "client-id",
            "maxage",
            "port",
            "numreplicas",
            "numlocal",
            "slot",
            "start-slot",
            "end-slot",
            "version",
            "cluster-bus-port",
            "config-epoch",
            "rank",
            "bit",
            "threshold",
            "limit",
        ];
        const KEYS: [&str; 9] =
            ["key", "newkey", "source", "destination", "key1", "key2", "sourcekey", "destkey", "dstkey"];
        match name {
            "pattern" => ArgKind::Pattern,
            "increment" if self.row.name.ends_with("float") || self.row.group == Group::SortedSet => ArgKind::Double,
            "increment" => ArgKind::Integer,
            "score" | "weight" | "longitude" | "latitude" | "radius" | "width" | "height" => ArgKind::Double,
            name if name.starts_with("unix-time") => ArgKind::UnixTime,
            name if INTEGERS.contains(&name) => ArgKind::Integer,
            name if KEYS.contains(&name) && !self.row.keys.is_empty() => ArgKind::Key,
            _ => ArgKind::String,
        }
    }
}

fn is_value(node: &Node) -> bool {
    match node {
        Node::Word(word) => !is_token(word),
        Node::Many(body) => matches!(body.first(), Some(Node::Word(word)) if !is_token(word)),
        _ => false,
    }
}

fn block(args: Vec<Argument>, name: String) -> Argument {
    Argument { args, ..leaf(&name, ArgKind::Block) }
}

fn joined(args: &[Argument], by: &str) -> String {
    args.iter().take(3).map(|arg| arg.name.as_str()).collect::<Vec<_>>().join(by)
}

/// The line of a list of arguments.
pub fn draw(args: &[Argument]) -> String {
    args.iter().map(Argument::draw).collect::<Vec<_>>().join(" ")
}

impl Argument {
    fn draw(&self) -> String {
        let body = match self.kind {
            ArgKind::PureToken => String::new(),
            ArgKind::OneOf => {
                let inner = self.args.iter().map(Argument::draw).collect::<Vec<_>>().join(" | ");
                match self.optional && self.token.is_none() && !self.multiple {
                    true => inner,
                    false => format!("<{inner}>"),
                }
            }
            ArgKind::Block => draw(&self.args),
            _ => self.name.clone(),
        };
        let token = self.token.clone().unwrap_or_default();
        let join = |token: &str, body: &str| format!("{token} {body}").trim().to_string();
        let text = match (self.multiple, self.multiple_token) {
            (false, _) => join(&token, &body),
            (true, false) => join(&token, &format!("{body} [{body} ...]")),
            (true, true) => format!("{0} [{0} ...]", join(&token, &body)),
        };
        match self.optional {
            true => format!("[{text}]"),
            false => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{CommandResult, KeySpec, key, table};

    #[test]
    fn every_usage_is_drawn_again_from_its_tree() {
        for (_, row) in table().rows() {
            assert_eq!(draw(&parse(row)), row.usage, "{}", row.name);
        }
    }

    fn none(_: &mut crate::shard::Shard, _: u32, _: crate::args::Args<'_>) -> CommandResult {
        Ok(())
    }

    fn tree(usage: &'static str) -> Vec<Argument> {
        const KEYS: &[KeySpec] = &[KeySpec::one(1, key::RW), KeySpec::one(2, key::RO)];
        let row = Command::home("t", none, -2, 0, Group::Generic).keys(KEYS).doc("1.0.0", "O(1)", "Tests.", usage);
        assert_eq!(draw(&parse(&row)), usage);
        parse(&row)
    }

    #[test]
    fn words_become_typed_arguments() {
        let args = tree("key newkey pattern count unix-time-seconds FORCE");
        let kinds: Vec<&str> = args.iter().map(|arg| arg.kind.name()).collect();
        assert_eq!(kinds, ["key", "key", "pattern", "integer", "unix-time", "pure-token"]);
        assert_eq!((args[0].key_spec, args[1].key_spec, args[2].key_spec), (Some(0), Some(1), None));
        assert_eq!(args[5].token.as_deref(), Some("FORCE"));
    }

    #[test]
    fn choices_and_blocks() {
        let args = tree("[NX | XX] [EX seconds | KEEPTTL] [LIMIT offset count] <host port | NO ONE>");
        assert_eq!(args[0].kind, ArgKind::OneOf);
        assert!(args[0].optional && args[0].args.iter().all(|arg| arg.kind == ArgKind::PureToken));
        assert_eq!((args[1].args[0].name.as_str(), args[1].args[0].token.as_deref()), ("seconds", Some("EX")));
        assert_eq!((args[2].kind, args[2].token.as_deref(), args[2].args.len()), (ArgKind::Block, Some("LIMIT"), 2));
        assert_eq!((args[3].optional, args[3].args[1].kind), (false, ArgKind::Block));
    }

    #[test]
    fn repetition_with_and_without_its_word() {
        let args = tree("key value [key value ...] [ID client-id [client-id ...]] [GET pattern [GET pattern ...]]");
        assert_eq!((args[0].kind, args[0].multiple, args[0].args.len()), (ArgKind::Block, true, 2));
        assert!(args[1].multiple && args[1].optional && !args[1].multiple_token);
        assert!(args[2].multiple && args[2].multiple_token);
    }
}
