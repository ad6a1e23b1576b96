//! Which clients `CLIENT KILL` means.

use super::Client;

/// Conditions; all that are given must hold.
#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    /// `ID`.
    pub ids: Option<Vec<u64>>,
    /// `ADDR`, or the old form's one argument.
    pub address: Option<String>,
    /// `LADDR`.
    pub local_address: Option<String>,
    /// `TYPE`.
    pub kind: Option<String>,
    /// `USER`.
    pub user: Option<Vec<u8>>,
    /// `MAXAGE`, in seconds.
    pub max_age: Option<i64>,
    /// The client that asks, when `SKIPME` spares it.
    pub spared: Option<u64>,
    /// The client that asks; if it is not spared it is answered before it is closed.
    pub asking: Option<u64>,
}

impl ClientFilter {
    /// Whether `client` of the user `user` meets every condition, at `now` Unix ms.
    pub fn matches(&self, client: &Client, user: &[u8], now_ms: i64) -> bool {
        self.spared != Some(client.id)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && self.address.as_ref().is_none_or(|a| *a == client.peer.address)
            && self.local_address.as_ref().is_none_or(|a| *a == client.peer.local_address)
            && self.kind.as_ref().is_none_or(|k| k == client.type_name())
            && self.user.as_ref().is_none_or(|u| u == user)
            && self.max_age.is_none_or(|age| (now_ms - client.created_ms) / 1000 >= age)
    }
}
