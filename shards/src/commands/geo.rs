//! Places on earth: `GEOADD`, `GEOSEARCH` and their family. Counterpart: `geo.c`.
//!
//! A geo set is a sorted set whose scores are geohashes; the arithmetic is in `geohash.rs`. All searches, the old
//! `GEORADIUS…` included, are one: [`Search`] reads the arguments of each form, [`Search::run`] finds the members.

use std::cmp::Ordering;

use super::geohash::{Place, Shape, covering};
use super::zset::{AddOptions, add, lookup_read, zset_of};
use super::zset_store::store_counted;
use super::{Command, CommandError, CommandResult, Ctx, Group, KeySpec, flag, key};
use crate::args::Args;
use crate::commands::spec::{Begin, Find};
use crate::entry::EntryPtr;
use crate::number::{parse_f64, parse_i64};
use crate::resp::Reply;
use crate::types::zset::{Gathered, Limits, ScoreEnd, Span, ZSet};

use flag::*;

const GEO: Group = Group::Geo;
const ONE_READ: &[KeySpec] = &[KeySpec::one(1, key::RO | key::ACCESS)];

const fn stored_behind(word: &'static str, from: i16) -> KeySpec {
    KeySpec {
        begin: Begin::Keyword(word, from),
        find: Find::Range { last: 0, step: 1, limit: 0 },
        flags: key::OW | key::UPDATE,
    }
}

const O_SEARCH: &str = "O(N+log(M)), N being the members in the cells around the place and M those of the whole set";

/// This family's rows.
pub static TABLE: &[Command] = &[
    Command::data("geoadd", geoadd, -5, WRITE | DENYOOM, GEO).keys(&[KeySpec::one(1, key::RW | key::UPDATE)]).doc(
        "3.2.0",
        "O(log(N)) for each member, N being the members of the set",
        "Adds places to a geo set, or moves them.",
        "key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]",
    ),
    Command::data("geodist", geodist, -4, READONLY, GEO).keys(ONE_READ).doc(
        "3.2.0",
        "O(1)",
        "Returns the distance between two members of a geo set.",
        "key member1 member2 [M | KM | FT | MI]",
    ),
    Command::data("geohash", geohash, -2, READONLY, GEO).keys(ONE_READ).doc(
        "3.2.0",
        "O(N), N being the number of members given",
        "Returns the geohashes of members of a geo set as texts.",
        "key [member [member ...]]",
    ),
    Command::data("geopos", geopos, -2, READONLY, GEO).keys(ONE_READ).doc(
        "3.2.0",
        "O(N), N being the number of members given",
        "Returns the longitudes and latitudes of members of a geo set.",
        "key [member [member ...]]",
    ),
    Command::data("geosearch", |ctx, args| search(ctx, args, Form::Search), -7, READONLY, GEO).keys(ONE_READ).doc(
        "6.2.0",
        O_SEARCH,
        "Returns the members of a geo set inside of a circle or a box.",
        "key <FROMMEMBER member | FROMLONLAT longitude latitude> <BYRADIUS radius <M | KM | FT | MI> | BYBOX width \
         height <M | KM | FT | MI>> [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]",
    ),
    Command::data("geosearchstore", |ctx, args| search(ctx, args, Form::SearchStore), -8, WRITE | DENYOOM, GEO)
        .keys(&[KeySpec::one(1, key::OW | key::UPDATE), KeySpec::one(2, key::RO | key::ACCESS)])
        .doc(
            "6.2.0",
            O_SEARCH,
            "Stores the members of a geo set inside of a circle or a box.",
            "destination source <FROMMEMBER member | FROMLONLAT longitude latitude> <BYRADIUS radius <M | KM | FT | \
             MI> | BYBOX width height <M | KM | FT | MI>> [ASC | DESC] [COUNT count [ANY]] [STOREDIST]",
        ),
    Command::data("georadius", |ctx, args| search(ctx, args, Form::Radius { ro: false }), -6, WRITE | DENYOOM, GEO)
        .keys(&[KeySpec::one(1, key::RO | key::ACCESS), stored_behind("STORE", 6), stored_behind("STOREDIST", 6)])
        .doc(
            "3.2.0",
            O_SEARCH,
            "Returns or stores the members of a geo set within a distance of a place.",
            "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] \
             [ASC | DESC] [STORE key | STOREDIST key]",
        ),
    Command::data("georadius_ro", |ctx, args| search(ctx, args, Form::Radius { ro: true }), -6, READONLY, GEO)
        .keys(ONE_READ)
        .doc(
            "3.2.10",
            O_SEARCH,
            "Returns the members of a geo set within a distance of a place.",
            "key longitude latitude radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] \
             [ASC | DESC]",
        ),
    Command::data(
        "georadiusbymember",
        |ctx, args| search(ctx, args, Form::RadiusByMember { ro: false }),
        -5,
        WRITE | DENYOOM,
        GEO,
    )
    .keys(&[KeySpec::one(1, key::RO | key::ACCESS), stored_behind("STORE", 5), stored_behind("STOREDIST", 5)])
    .doc(
        "3.2.0",
        O_SEARCH,
        "Returns or stores the members of a geo set within a distance of one of them.",
        "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] \
         [STORE key | STOREDIST key]",
    ),
    Command::data(
        "georadiusbymember_ro",
        |ctx, args| search(ctx, args, Form::RadiusByMember { ro: true }),
        -5,
        READONLY,
        GEO,
    )
    .keys(ONE_READ)
    .doc(
        "3.2.10",
        O_SEARCH,
        "Returns the members of a geo set within a distance of one of them.",
        "key member radius <M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]",
    ),
];

// ------------------------------------------------------------------ arguments and replies

fn number(text: &[u8], error: &'static str) -> Result<f64, CommandError> {
    parse_f64(text).ok_or(CommandError::from(error))
}

/// The place at arguments `at` and `at + 1`.
fn place(args: Args<'_>, at: usize) -> Result<Place, CommandError> {
    let coordinate = |i| parse_f64(args.at(i)).ok_or(CommandError::NotFloat);
    let place = Place { longitude: coordinate(at)?, latitude: coordinate(at + 1)? };
    if !place.is_valid() {
        let Place { longitude, latitude } = place;
        return Err(format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}").into());
    }
    Ok(place)
}

/// Metres of a unit.
fn unit(text: &[u8]) -> Result<f64, CommandError> {
    let units: [(&[u8], f64); 4] = [(b"m", 1.0), (b"km", 1000.0), (b"ft", 0.3048), (b"mi", 1609.34)];
    let found = units.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    found.map(|(_, metres)| *metres).ok_or("ERR unsupported unit provided. please use M, KM, FT, MI".into())
}

/// A distance, with four decimals.
fn reply_distance(reply: &mut Reply<'_>, distance: f64) {
    // Beyond what an integer of so many ten-thousandths holds, Redis's fixed-point writer gives what it can.
    let scaled = (distance * 10_000.0).round_ties_even() as i64;
    let (sign, scaled) = (if scaled < 0 { "-" } else { "" }, scaled.unsigned_abs());
    reply.bulk(format!("{sign}{}.{:04}", scaled / 10_000, scaled % 10_000).as_bytes());
}

/// A coordinate, with up to 17 decimals.
fn reply_coordinate(reply: &mut Reply<'_>, degrees: f64) {
    let text = format!("{degrees:.17}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let text = if text == "-0" { "0" } else { text };
    match reply.resp {
        3 => {
            reply.out.push(b',');
            reply.out.extend_from_slice(text.as_bytes());
            reply.out.extend_from_slice(b"\r\n");
        }
        _ => reply.bulk(text.as_bytes()),
    }
}

fn reply_place(reply: &mut Reply<'_>, place: Place) {
    reply.array(2);
    reply_coordinate(reply, place.longitude);
    reply_coordinate(reply, place.latitude);
}

// ------------------------------------------------------------------ members

fn geoadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let mut options = AddOptions::default();
    let mut at = 2;
    while at < args.len() {
        match () {
            _ if args.is(at, "nx") => options.nx = true,
            _ if args.is(at, "xx") => options.xx = true,
            _ if args.is(at, "ch") => options.ch = true,
            _ => break,
        }
        at += 1;
    }
    if !(args.len() - at).is_multiple_of(3) || options.nx && options.xx {
        return Err(CommandError::Syntax);
    }
    let mut items = Vec::with_capacity((args.len() - at) / 3);
    for i in (at..args.len()).step_by(3) {
        items.push((place(args, i)?.score(), args.at(i + 2)));
    }
    if items.is_empty() {
        return Err(CommandError::Syntax);
    }
    let key = ctx.key(args, 1);
    add(ctx, key, &items, options)?;
    if ctx.dirty > 0 {
        // Scores say the same wherever they are computed.
        let scores: Vec<String> = items.iter().map(|(score, _)| (*score as u64).to_string()).collect();
        let mut words: Vec<&[u8]> = vec![b"ZADD", key.bytes];
        words.extend(args.iter_from(2).take(at - 2));
        words.extend(items.iter().zip(&scores).flat_map(|((_, member), score)| [score.as_bytes(), member]));
        ctx.effect(&words);
    }
    Ok(())
}

/// Calls `reply` for each member given, with its place if it is there.
fn for_members(
    ctx: &mut Ctx<'_>,
    args: Args<'_>,
    mut reply: impl FnMut(&mut Reply<'_>, Option<Place>),
) -> CommandResult {
    let key = ctx.key(args, 1);
    let found = lookup_read(ctx, key)?;
    ctx.reply.array(args.len() - 2);
    for member in args.iter_from(2) {
        let score = found.as_ref().and_then(|entry| zset_of(entry).score(member));
        reply(&mut ctx.reply, score.map(Place::of_score));
    }
    Ok(())
}

fn geohash(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    for_members(ctx, args, |reply, place| match place {
        Some(place) => reply.bulk(&place.text()),
        None => reply.null(),
    })
}

fn geopos(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    for_members(ctx, args, |reply, place| match place {
        Some(place) => reply_place(reply, place),
        None => reply.null_array(),
    })
}

fn geodist(ctx: &mut Ctx<'_>, args: Args<'_>) -> CommandResult {
    let metres = match args.len() {
        4 => 1.0,
        5 => unit(args.at(4))?,
        _ => return Err(CommandError::Syntax),
    };
    let key = ctx.key(args, 1);
    let found = lookup_read(ctx, key)?;
    let place = |member| found.as_ref().and_then(|entry| zset_of(entry).score(member)).map(Place::of_score);
    match (place(args.at(2)), place(args.at(3))) {
        (Some(a), Some(b)) => reply_distance(&mut ctx.reply, a.distance(b) / metres),
        _ => ctx.reply.null(),
    }
    Ok(())
}

// ------------------------------------------------------------------ searching

/// Which command a search comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Search,
    SearchStore,
    Radius { ro: bool },
    RadiusByMember { ro: bool },
}

impl Form {
    fn is_search(self) -> bool {
        matches!(self, Form::Search | Form::SearchStore)
    }

    /// Whether an option may name a key to store at.
    fn may_store(self) -> bool {
        matches!(self, Form::Radius { ro: false } | Form::RadiusByMember { ro: false })
    }
}

struct Search<'a> {
    centre: Place,
    shape: Shape,
    /// Metres of the unit in which distances come and go.
    metres: f64,
    order: Option<Order>,
    /// Members wanted at most; 0 for all.
    count: usize,
    /// Whether any so many will do.
    any: bool,
    with_distance: bool,
    with_hash: bool,
    with_place: bool,
    store: Option<&'a [u8]>,
    store_distance: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Near,
    Far,
}

/// A member that was found.
struct Found {
    member: Vec<u8>,
    score: f64,
    place: Place,
    /// In metres.
    distance: f64,
}

/// A distance in some unit and what a metre of it is.
fn radius(args: Args<'_>, at: usize) -> Result<(f64, f64), CommandError> {
    let radius = number(args.at(at), "ERR need numeric radius")?;
    if radius < 0.0 {
        return Err("ERR radius cannot be negative".into());
    }
    Ok((radius, unit(args.at(at + 1))?))
}

impl<'a> Search<'a> {
    /// Reads the arguments of any form. `entry` is the searched key's, whose members may be named.
    fn parse(args: Args<'a>, form: Form, entry: Option<&EntryPtr>) -> Result<Self, CommandError> {
        let mut search = Search {
            centre: Place::default(),
            shape: Shape::Circle(0.0),
            metres: 1.0,
            order: None,
            count: 0,
            any: false,
            with_distance: false,
            with_hash: false,
            with_place: false,
            store: None,
            store_distance: false,
        };
        let member_place = |member: &[u8]| {
            // Without a key nothing is found, whatever the arguments.
            let Some(entry) = entry else { return Ok(Place::default()) };
            let score = zset_of(entry).score(member).ok_or("ERR could not decode requested zset member")?;
            Ok::<_, CommandError>(Place::of_score(score))
        };
        let circle = |search: &mut Self, at| {
            let (radius, metres) = radius(args, at)?;
            (search.shape, search.metres) = (Shape::Circle(radius * metres), metres);
            Ok::<_, CommandError>(())
        };
        let mut i = match form {
            Form::Radius { .. } => {
                search.centre = place(args, 2)?;
                circle(&mut search, 4)?;
                6
            }
            Form::RadiusByMember { .. } => {
                if entry.is_some() {
                    search.centre = member_place(args.at(2))?;
                    circle(&mut search, 3)?;
                }
                5
            }
            Form::Search => 2,
            Form::SearchStore => {
                search.store = Some(args.at(1));
                3
            }
        };
        let (mut from_member, mut from_place, mut by_radius, mut by_box) = (false, false, false, false);
        while i < args.len() {
            let left = args.len() - i - 1;
            match () {
                _ if args.is(i, "withdist") => search.with_distance = true,
                _ if args.is(i, "withhash") => search.with_hash = true,
                _ if args.is(i, "withcoord") => search.with_place = true,
                _ if args.is(i, "any") => search.any = true,
                _ if args.is(i, "asc") => search.order = Some(Order::Near),
                _ if args.is(i, "desc") => search.order = Some(Order::Far),
                _ if args.is(i, "count") && left >= 1 => {
                    let count = parse_i64(args.at(i + 1)).ok_or(CommandError::NotInteger)?;
                    let count = usize::try_from(count).ok().filter(|count| *count > 0);
                    search.count = count.ok_or("ERR COUNT must be > 0")?;
                    i += 1;
                }
                _ if args.is(i, "store") && left >= 1 && form.may_store() => {
                    (search.store, search.store_distance) = (Some(args.at(i + 1)), false);
                    i += 1;
                }
                _ if args.is(i, "storedist") && left >= 1 && form.may_store() => {
                    (search.store, search.store_distance) = (Some(args.at(i + 1)), true);
                    i += 1;
                }
                _ if args.is(i, "storedist") && form == Form::SearchStore => search.store_distance = true,
                _ if args.is(i, "frommember") && left >= 1 && form.is_search() && !from_place => {
                    search.centre = member_place(args.at(i + 1))?;
                    from_member = true;
                    i += 1;
                }
                _ if args.is(i, "fromlonlat") && left >= 2 && form.is_search() && !from_member => {
                    search.centre = place(args, i + 1)?;
                    from_place = true;
                    i += 2;
                }
                _ if args.is(i, "byradius") && left >= 2 && form.is_search() && !by_box => {
                    circle(&mut search, i + 1)?;
                    by_radius = true;
                    i += 2;
                }
                _ if args.is(i, "bybox") && left >= 3 && form.is_search() && !by_radius => {
                    let width = number(args.at(i + 1), "ERR need numeric width")?;
                    let height = number(args.at(i + 2), "ERR need numeric height")?;
                    if width < 0.0 || height < 0.0 {
                        return Err("ERR height or width cannot be negative".into());
                    }
                    let metres = unit(args.at(i + 3))?;
                    let shape = Shape::Box { width: width * metres, height: height * metres };
                    (search.shape, search.metres) = (shape, metres);
                    by_box = true;
                    i += 3;
                }
                _ => return Err(CommandError::Syntax),
            }
            i += 1;
        }
        if search.store.is_some() && (search.with_distance || search.with_hash || search.with_place) {
            let what = if form == Form::SearchStore { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            return Err(format!("ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options").into());
        }
        let name = String::from_utf8_lossy(args.at(0));
        if form.is_search() && !from_member && !from_place {
            let text = format!("ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {name}");
            return Err(text.into());
        }
        if form.is_search() && !by_radius && !by_box {
            return Err(format!("ERR exactly one of BYRADIUS and BYBOX can be specified for {name}").into());
        }
        if search.any && search.count == 0 {
            return Err("ERR the ANY argument requires COUNT argument".into());
        }
        // The nearest, where only some are wanted and not just any.
        if search.count > 0 && search.order.is_none() && !search.any {
            search.order = Some(Order::Near);
        }
        Ok(search)
    }

    /// Finds the members, in the order asked for.
    fn run(&self, set: &ZSet) -> Vec<Found> {
        let enough = if self.any { self.count } else { usize::MAX };
        let mut all: Vec<Found> = Vec::new();
        for cell in covering(self.shape, self.centre) {
            let (min, beyond) = cell.scores();
            let span = Span::Score(ScoreEnd { score: min, open: false }, ScoreEnd { score: beyond, open: true });
            let (from, to) = set.ranks_of(span);
            set.range(from, to, false, |member, score| {
                if all.len() >= enough {
                    return;
                }
                let place = Place::of_score(score);
                if let Some(distance) = self.shape.distance_inside(self.centre, place) {
                    let member = member.as_bytes(&mut itoa::Buffer::new()).to_vec();
                    all.push(Found { member, score, place, distance });
                }
            });
            if all.len() >= enough {
                break;
            }
        }
        if let Some(order) = self.order {
            all.sort_by(|a, b| {
                let by_distance = a.distance.partial_cmp(&b.distance).unwrap_or(Ordering::Equal);
                if order == Order::Near { by_distance } else { by_distance.reverse() }
            });
        }
        if self.count > 0 {
            all.truncate(self.count);
        }
        all
    }

    fn reply(&self, reply: &mut Reply<'_>, found: &[Found]) {
        let options = [self.with_distance, self.with_hash, self.with_place].into_iter().filter(|with| *with).count();
        reply.array(found.len());
        for item in found {
            if options > 0 {
                reply.array(1 + options);
            }
            reply.bulk(&item.member);
            if self.with_distance {
                reply_distance(reply, item.distance / self.metres);
            }
            if self.with_hash {
                reply.integer(item.score as i64);
            }
            if self.with_place {
                reply_place(reply, item.place);
            }
        }
    }
}

fn search(ctx: &mut Ctx<'_>, args: Args<'_>, form: Form) -> CommandResult {
    let source = ctx.key_of(args.at(if form == Form::SearchStore { 2 } else { 1 }));
    let entry = lookup_read(ctx, source)?;
    let search = Search::parse(args, form, entry.as_ref())?;
    let found = entry.as_ref().map_or_else(Vec::new, |entry| search.run(zset_of(entry)));
    let Some(destination) = search.store else {
        search.reply(&mut ctx.reply, &found);
        return Ok(());
    };
    let mut result = Gathered::new(&ctx.core.hasher);
    for item in &found {
        let score = if search.store_distance { item.distance / search.metres } else { item.score };
        result.merge(&item.member, score, |old| old);
    }
    let result = result.finish(Limits::of(&ctx.core.config));
    let event = if form == Form::SearchStore { "geosearchstore" } else { "georadiusstore" };
    let changes = result.len() as u64;
    store_counted(ctx, destination, result, event, changes);
    Ok(())
}

#[cfg(test)]
mod tests;
