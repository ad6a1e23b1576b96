//! `set-proc-title`: what `ps` and `/proc/PID/cmdline` show of this process.
//!
//! The kernel shows the bytes where the arguments lay when the process began, and where the last of them is no NUL, what
//! follows in the place of the environment, up to a NUL. So the title is written over both, and the environment is moved
//! away first. Counterpart: `setproctitle.c` and `redisSetProcTitle`.

use std::ffi::CStr;
use std::fs;
use std::sync::Mutex;

use ringshard_shards::config::Config;

/// The longest title (Redis: `SPT_MAXTITLE`).
const LONGEST: usize = 255;

/// Where the title goes: the address and bytes that the arguments and the environment had.
struct Place {
    start: usize,
    bytes: usize,
    /// The first argument, which templates call `{title}`.
    title: String,
}

static PLACE: Mutex<Option<Place>> = Mutex::new(None);

/// Finds the place for titles, and moves the environment out of it. What asks for the arguments later finds the title.
/// To be called before there are threads; where `/proc` is missing or strange, there will be no title.
pub fn init() {
    let mut place = PLACE.lock().expect("no holder panics");
    if place.is_none() {
        *place = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| find(&stat));
    }
}

fn find(stat: &str) -> Option<Place> {
    // The name of the program may hold anything; the third field stands behind its last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<usize>().ok();
    let (start, end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
    if start == 0 || start >= end {
        return None;
    }
    let title = std::env::args_os().next()?.to_string_lossy().into_owned();
    let together = env_start == end && env_start < env_end;
    if together {
        move_environment();
    }
    Some(Place { start, bytes: if together { env_end } else { end } - start, title })
}

/// Has the environment's variables lie elsewhere, for good.
fn move_environment() {
    // SAFETY: nobody else reads or changes the environment, as there are no threads yet. It is a list of strings that
    // ends with a null; the copy is one as well, and is never freed.
    unsafe {
        let mut at = libc::environ;
        let mut copy: Vec<*mut libc::c_char> = Vec::new();
        while !at.is_null() && !(*at).is_null() {
            copy.push(CStr::from_ptr(*at).to_owned().into_raw());
            at = at.add(1);
        }
        copy.push(std::ptr::null_mut());
        libc::environ = Box::leak(copy.into_boxed_slice()).as_mut_ptr();
    }
}

/// Shows the title that the configuration asks for.
pub fn set(config: &Config, config_file: &str) {
    let place = PLACE.lock().expect("no holder panics");
    let Some(place) = place.as_ref().filter(|_| config.set_proc_title) else { return };
    let text = expand(&config.proc_title_template, config, config_file, &place.title);
    let len = text.len().min(LONGEST).min(place.bytes - 1);
    // SAFETY: the kernel has laid out these bytes for the arguments and the environment, they can be written to, and
    // nobody uses what was there.
    let bytes = unsafe { std::slice::from_raw_parts_mut(place.start as *mut u8, place.bytes) };
    bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
    bytes[len..].fill(0);
}

/// The template with its variables filled in; the directive's check has passed it.
fn expand(template: &str, config: &Config, config_file: &str, title: &str) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, from_brace)) = rest.split_once('{') {
        text.push_str(before);
        if let Some(after) = from_brace.strip_prefix('{') {
            text.push('{');
            rest = after;
            continue;
        }
        let (variable, after) = from_brace.split_once('}').unwrap_or((from_brace, ""));
        match variable {
            "title" => text.push_str(title),
            "listen-addr" => text.push_str(&listen_addr(config)),
            "port" => text.push_str(&config.port.to_string()),
            "tls-port" => text.push_str(&config.tls_port.to_string()),
            "unixsocket" => text.push_str(config.unixsocket.as_deref().unwrap_or("")),
            "config-file" => text.push_str(if config_file.is_empty() { "-" } else { config_file }),
            // `server-mode` is for clusters and sentinels.
            _ => {}
        }
        rest = after;
    }
    text.push_str(rest);
    text.trim_matches(' ').to_string()
}

fn listen_addr(config: &Config) -> String {
    match [config.port, config.tls_port].into_iter().find(|port| *port != 0) {
        None => format!("unixsocket:{}", config.unixsocket.as_deref().unwrap_or("")),
        Some(port) => format!("{}:{port}", config.bind.first().map_or("*", |address| address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_in() {
        let config = Config::default();
        let expand = |template: &str| expand(template, &config, "", "./ringshard");
        assert_eq!(expand("{title} {listen-addr} {server-mode}"), "./ringshard *:6379");
        assert_eq!(expand(" {{{port}-{tls-port}} {unixsocket}{config-file} "), "{6379-0} -");
        let config = Config { port: 0, tls_port: 7000, bind: vec!["::1".into()], ..Config::default() };
        assert_eq!(super::expand("{listen-addr}", &config, "", ""), "::1:7000");
        let config = Config { port: 0, unixsocket: Some("/run/socket".into()), ..Config::default() };
        assert_eq!(super::expand("{listen-addr} {config-file}", &config, "a b", ""), "unixsocket:/run/socket a b");
    }

    #[test]
    fn the_place_is_found_behind_any_name() {
        let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = |name: &str| format!("1 ({name}) S {}", numbers.join(" "));
        for name in ["x", "a ) b (", "1 (2) R 3"] {
            // The arguments do not touch the environment here.
            let place = find(&stat(name)).unwrap();
            assert_eq!((place.start, place.bytes), (48, 1));
        }
        assert!(
            find("").is_none() && find("1 (x) S 1 2").is_none() && find(&stat("x").replace(" 48 ", " - ")).is_none()
        );
    }
}
