//! How a command waits for keys: `BLPOP`, `BZPOPMIN`, `XREAD BLOCK` and their kin.
//!
//! A blocking command looks whether it can be served; if so it replies, and if not it ends with [`Ctx::block`]. When
//! one of its keys becomes ready the same command is simply run again. Who waits where, and who is served first, is
//! settled in `shard/blocking.rs`; commands know nothing of it.

use super::{CommandError, CommandResult, Ctx};
use crate::args::OwnedArgs;
use crate::core::Core;

/// What a client gets whose time has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutReply {
    /// The null list.
    NullArray,
    /// The null.
    Null,
}

impl TimeoutReply {
    /// Writes it.
    pub fn write(self, reply: &mut crate::resp::Reply<'_>) {
        match self {
            TimeoutReply::NullArray => reply.null_array(),
            TimeoutReply::Null => reply.null(),
        }
    }
}

/// What a command waits for.
pub struct Block<'a> {
    /// Unix ms at which it gives up; 0 for never.
    pub deadline_ms: i64,
    /// The keys.
    pub keys: &'a [&'a [u8]],
    /// The reply when the time has run out.
    pub timeout_reply: TimeoutReply,
    /// What to run again when a key is ready, where the command's own words will not do: `$` made an id.
    pub again: Option<OwnedArgs>,
    /// Whether it wakes also when a key goes or changes its type; an error then ends the wait.
    pub on_delete: bool,
}

/// A [`Block`] that has left its command.
#[derive(Debug)]
pub struct BlockRequest {
    pub(crate) deadline_ms: i64,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) timeout_reply: TimeoutReply,
    pub(crate) again: Option<OwnedArgs>,
    pub(crate) on_delete: bool,
}

impl Ctx<'_> {
    /// Makes the client wait, or replies as if its time had run out where waiting is not allowed: inside `MULTI`, in
    /// scripts. The command must have written no reply and changed nothing.
    ///
    /// # Errors
    /// [`CommandError::NoReply`] when the client waits.
    pub fn block(&mut self, block: Block<'_>) -> CommandResult {
        if self.core.deny_blocking {
            block.timeout_reply.write(&mut self.reply);
            return Ok(());
        }
        let Block { deadline_ms, keys, timeout_reply, again, on_delete } = block;
        let keys = keys.iter().map(|key| key.to_vec()).collect();
        self.core.block_request = Some(Box::new(BlockRequest { deadline_ms, keys, timeout_reply, again, on_delete }));
        Err(CommandError::NoReply)
    }
}

/// The deadline that a time-out in seconds, possibly with a fraction, gives; 0 for none.
///
/// # Errors
/// Redis's texts for what is no number, is negative, or reaches past the end of time.
pub fn deadline_of_seconds(core: &Core, arg: &[u8]) -> Result<i64, CommandError> {
    let seconds = crate::number::parse_f64(arg).or_else(|| hexadecimal(arg));
    let seconds = seconds.ok_or("ERR timeout is not a float or out of range")?;
    let ms = (seconds * 1000.0).ceil();
    if ms > i64::MAX as f64 {
        return Err("ERR timeout is out of range".into());
    }
    deadline(core, if seconds < 0.0 { -1 } else { ms as i64 })
}

/// A whole number in hexadecimal, which the C library takes for a float, and so Redis for a time-out.
fn hexadecimal(arg: &[u8]) -> Option<f64> {
    let digits = arg.strip_prefix(b"0x").or_else(|| arg.strip_prefix(b"0X"))?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u64::from_str_radix(digits, 16).ok().map(|number| number as f64)
}

/// The deadline that a time-out in whole milliseconds gives; 0 for none.
///
/// # Errors
/// As for [`deadline_of_seconds`].
pub fn deadline_of_ms(core: &Core, arg: &[u8]) -> Result<i64, CommandError> {
    deadline(core, crate::number::parse_i64(arg).ok_or("ERR timeout is not an integer or out of range")?)
}

fn deadline(core: &Core, ms: i64) -> Result<i64, CommandError> {
    match ms {
        ..0 => Err("ERR timeout is negative".into()),
        0 => Ok(0),
        ms => core.now_ms.checked_add(ms).ok_or("ERR timeout is out of range".into()),
    }
}
