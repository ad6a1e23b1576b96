//! How a command fails: Redis's error codes and texts.

use std::borrow::Cow;

/// What a command returns; a reply is written only when it succeeds.
pub type CommandResult = Result<(), CommandError>;

/// An error reply. Nothing was changed when a command returns one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The key holds a value of another type.
    WrongType,
    /// The options do not fit together, or one is unknown.
    Syntax,
    /// An argument or a value is no integer in range.
    NotInteger,
    /// An argument or a value is no float.
    NotFloat,
    /// The key must exist.
    NoSuchKey,
    /// An index beyond the end.
    IndexOutOfRange,
    /// A value out of its range.
    OutOfRange,
    /// The number of arguments is wrong for this command.
    Arity(&'static str),
    /// One that a script passes on, with its code; statistics have it already.
    Counted(Cow<'static, str>),
    /// Any other, with its code.
    Text(Cow<'static, str>),
    /// The reply was written already, or will be later; nothing is to be added.
    NoReply,
}

impl CommandError {
    /// An error of this text, its code included.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        CommandError::Text(text.into())
    }

    /// The text of the reply, its code included.
    pub fn text(&self) -> Cow<'static, str> {
        match self {
            CommandError::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value".into(),
            CommandError::Syntax => "ERR syntax error".into(),
            CommandError::NotInteger => "ERR value is not an integer or out of range".into(),
            CommandError::NotFloat => "ERR value is not a valid float".into(),
            CommandError::NoSuchKey => "ERR no such key".into(),
            CommandError::IndexOutOfRange => "ERR index out of range".into(),
            CommandError::OutOfRange => "ERR value is out of range".into(),
            CommandError::Arity(name) => format!("ERR wrong number of arguments for '{name}' command").into(),
            CommandError::Text(text) | CommandError::Counted(text) => text.clone(),
            CommandError::NoReply => "".into(),
        }
    }
}

impl From<&'static str> for CommandError {
    fn from(text: &'static str) -> Self {
        CommandError::Text(text.into())
    }
}

impl From<String> for CommandError {
    fn from(text: String) -> Self {
        CommandError::Text(text.into())
    }
}
