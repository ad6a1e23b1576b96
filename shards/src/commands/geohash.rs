//! Geohashes: a place on earth as one integer of 52 bits whose neighbours, mostly, are its neighbours in number.
//!
//! Longitude and latitude are each cut in halves over and over; 26 cuts of each, taken by turns, latitude in the even
//! bits, are the score of a member of a geo set. All places of a cell of fewer cuts ([`Cell`]) have one range of
//! scores, so a search around a place is: choose cells of a size that the searched area is covered by the one around
//! its centre and the eight next to it ([`covering`]), read the members of nine ranges of scores, and keep those that
//! lie inside. The range of latitudes ends at ±85.05112878°, where a Mercator map is square.
//!
//! The arithmetic is Redis's to the bit, as scores are stored and compared. Counterparts: `geohash.c`,
//! `geohash_helper.c`.

/// Cuts of each coordinate in a score.
pub const STEPS: u32 = 26;
/// The greatest longitude, and with a minus the least.
pub const LONGITUDE_MAX: f64 = 180.0;
/// The greatest latitude, and with a minus the least.
pub const LATITUDE_MAX: f64 = 85.05112878;
/// Half of the earth's circumference on a Mercator map, in m.
const MERCATOR_MAX: f64 = 20037726.37;
const EARTH_RADIUS_M: f64 = 6372797.560856;

/// A place, in degrees.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Place {
    /// East is positive.
    pub longitude: f64,
    /// North is positive.
    pub latitude: f64,
}

/// A cell: `steps` cuts of each coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The cuts, by turns, in the low `2 * steps` bits.
    pub bits: u64,
    /// How many of each coordinate.
    pub steps: u32,
}

/// What a cell covers.
#[derive(Clone, Copy, Debug)]
struct Area {
    longitude: (f64, f64),
    latitude: (f64, f64),
}

/// What is searched: lengths in m.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// All within this distance.
    Circle(f64),
    /// All within half the width and half the height.
    Box {
        /// East to west.
        width: f64,
        /// North to south.
        height: f64,
    },
}

/// Spreads the low 32 bits to the even ones of 64.
fn spread(bits: u32) -> u64 {
    let mut x = u64::from(bits);
    for (shift, mask) in [
        (16, 0x0000_FFFF_0000_FFFF),
        (8, 0x00FF_00FF_00FF_00FF),
        (4, 0x0F0F_0F0F_0F0F_0F0F),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        x = (x | x << shift) & mask;
    }
    x
}

/// Gathers the even bits of 64 in the low 32.
fn gather(bits: u64) -> u32 {
    let mut x = bits & 0x5555_5555_5555_5555;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0F0F_0F0F_0F0F_0F0F),
        (4, 0x00FF_00FF_00FF_00FF),
        (8, 0x0000_FFFF_0000_FFFF),
        (16, 0x0000_0000_FFFF_FFFF),
    ] {
        x = (x | x >> shift) & mask;
    }
    x as u32
}

impl Place {
    /// Whether it lies within the ranges of scores.
    pub fn is_valid(self) -> bool {
        self.longitude.abs() <= LONGITUDE_MAX && self.latitude.abs() <= LATITUDE_MAX
    }

    fn cell_in(self, latitude_max: f64, steps: u32) -> Cell {
        let cut = |value: f64, max: f64| {
            let offset = (value + max) / (max + max);
            // A place on the far edge of the last cell belongs to none; it wraps as in Redis's 32 bits.
            (offset * (1u64 << steps) as f64) as u64 as u32
        };
        let (x, y) = (cut(self.longitude, LONGITUDE_MAX), cut(self.latitude, latitude_max));
        Cell { bits: spread(y) | spread(x) << 1, steps }
    }

    /// The cell of so many cuts that it lies in.
    pub fn cell(self, steps: u32) -> Cell {
        self.cell_in(LATITUDE_MAX, steps)
    }

    /// Its score in a sorted set.
    pub fn score(self) -> f64 {
        self.cell(STEPS).bits as f64
    }

    /// The place of a score: the middle of its cell.
    pub fn of_score(score: f64) -> Self {
        let area = Cell { bits: score as u64, steps: STEPS }.area();
        let middle = |(min, max): (f64, f64), limit: f64| ((min + max) / 2.0).clamp(-limit, limit);
        Place { longitude: middle(area.longitude, LONGITUDE_MAX), latitude: middle(area.latitude, LATITUDE_MAX) }
    }

    /// The geohash as others write it, 11 letters over the whole range of latitudes. The last stands for bits that
    /// are not there, and is always `0`.
    pub fn text(self) -> [u8; 11] {
        let letters = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let bits = self.cell_in(90.0, STEPS).bits;
        let mut text = [b'0'; 11];
        for (i, letter) in text[..10].iter_mut().enumerate() {
            *letter = letters[(bits >> (52 - 5 * (i + 1))) as usize & 31];
        }
        text
    }

    /// The distance in m, as the crow flies on a sphere (haversine).
    pub fn distance(self, other: Place) -> f64 {
        let v = ((other.longitude.to_radians_exact() - self.longitude.to_radians_exact()) / 2.0).sin();
        if v == 0.0 {
            return latitude_distance(self.latitude, other.latitude);
        }
        let (a, b) = (self.latitude.to_radians_exact(), other.latitude.to_radians_exact());
        let u = ((b - a) / 2.0).sin();
        let a = u * u + a.cos() * b.cos() * v * v;
        2.0 * EARTH_RADIUS_M * a.sqrt().asin()
    }
}

/// Degrees to radians and back in the order of operations that Redis has, so that the last bit agrees.
trait Degrees {
    fn to_radians_exact(self) -> f64;
    fn to_degrees_exact(self) -> f64;
}

impl Degrees for f64 {
    fn to_radians_exact(self) -> f64 {
        self * (std::f64::consts::PI / 180.0)
    }

    fn to_degrees_exact(self) -> f64 {
        self / (std::f64::consts::PI / 180.0)
    }
}

fn latitude_distance(a: f64, b: f64) -> f64 {
    EARTH_RADIUS_M * (b.to_radians_exact() - a.to_radians_exact()).abs()
}

impl Cell {
    fn area(self) -> Area {
        let cells = (1u64 << self.steps) as f64;
        let range = |i: u32, max: f64| {
            let (i, scale) = (f64::from(i), max + max);
            (-max + i / cells * scale, -max + (i + 1.0) / cells * scale)
        };
        Area {
            latitude: range(gather(self.bits), LATITUDE_MAX),
            longitude: range(gather(self.bits >> 1), LONGITUDE_MAX),
        }
    }

    /// The cell so many columns to the east and rows to the north; both ranges wrap around.
    fn neighbour(self, east: i32, north: i32) -> Cell {
        let mask = ((1u64 << self.steps) - 1) as u32;
        let x = gather(self.bits >> 1).wrapping_add_signed(east) & mask;
        let y = gather(self.bits).wrapping_add_signed(north) & mask;
        Cell { bits: spread(y) | spread(x) << 1, steps: self.steps }
    }

    /// The scores of the places in it: the least, and the first beyond.
    pub fn scores(self) -> (f64, f64) {
        let shift = 52 - 2 * self.steps;
        ((self.bits << shift) as f64, ((self.bits + 1) << shift) as f64)
    }
}

impl Shape {
    /// The distance of `place` from `centre`, if it lies inside.
    pub fn distance_inside(self, centre: Place, place: Place) -> Option<f64> {
        match self {
            Shape::Circle(radius) => Some(centre.distance(place)).filter(|distance| *distance <= radius),
            Shape::Box { width, height } => {
                // Up and down first, which is the cheaper to compute.
                if latitude_distance(place.latitude, centre.latitude) > height / 2.0 {
                    return None;
                }
                let beside = Place { longitude: centre.longitude, latitude: place.latitude };
                (place.distance(beside) <= width / 2.0).then(|| centre.distance(place))
            }
        }
    }

    /// The distance from the centre to what is farthest inside.
    fn reach(self) -> f64 {
        match self {
            Shape::Circle(radius) => radius,
            Shape::Box { width, height } => ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt(),
        }
    }

    /// The least and greatest longitude and latitude.
    fn bounds(self, centre: Place) -> Area {
        let (width, height) = match self {
            Shape::Circle(radius) => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let up = (height / EARTH_RADIUS_M).to_degrees_exact();
        // The side nearer to the pole is the wider in degrees.
        let towards_pole = if centre.latitude < 0.0 { centre.latitude - up } else { centre.latitude + up };
        let aside = (width / EARTH_RADIUS_M / towards_pole.to_radians_exact().cos()).to_degrees_exact();
        Area {
            longitude: (centre.longitude - aside, centre.longitude + aside),
            latitude: (centre.latitude - up, centre.latitude + up),
        }
    }
}

/// Cuts at which a cell is about as large as the distance searched.
fn steps_for(distance: f64, latitude: f64) -> u32 {
    if distance == 0.0 {
        return STEPS;
    }
    let (mut distance, mut steps) = (distance, 1i32);
    while distance < MERCATOR_MAX {
        distance *= 2.0;
        steps += 1;
    }
    // So that the cell and its neighbours cover most cases; cells are narrower towards the poles.
    steps -= 2;
    if latitude.abs() > 66.0 {
        steps -= 1;
    }
    if latitude.abs() > 80.0 {
        steps -= 1;
    }
    steps.clamp(1, STEPS as i32) as u32
}

/// East and north of the cells that are searched, in the order in which Redis searches them, which is the order of a
/// reply that is not sorted.
const AROUND: [(i32, i32); 9] = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];

/// The cells that together cover a shape.
pub fn covering(shape: Shape, centre: Place) -> Vec<Cell> {
    let bounds = shape.bounds(centre);
    let mut steps = steps_for(shape.reach(), centre.latitude);
    let mut cell = centre.cell(steps);
    // Near an edge of its cell a place may have too much of the shape beyond the next one.
    let beyond = cell.neighbour(0, 1).area().latitude.1 < bounds.latitude.1
        || cell.neighbour(0, -1).area().latitude.0 > bounds.latitude.0
        || cell.neighbour(1, 0).area().longitude.1 < bounds.longitude.1
        || cell.neighbour(-1, 0).area().longitude.0 > bounds.longitude.0;
    if steps > 1 && beyond {
        steps -= 1;
        cell = centre.cell(steps);
    }
    let area = cell.area();
    // What the cell itself covers up to an edge needs none beyond it.
    let needed = |(east, north): (i32, i32)| {
        steps < 2
            || !(north < 0 && area.latitude.0 < bounds.latitude.0
                || north > 0 && area.latitude.1 > bounds.latitude.1
                || east < 0 && area.longitude.0 < bounds.longitude.0
                || east > 0 && area.longitude.1 > bounds.longitude.1)
    };
    let mut cells: Vec<Cell> = Vec::with_capacity(AROUND.len());
    for (east, north) in AROUND.into_iter().filter(|step| needed(*step)) {
        let next = cell.neighbour(east, north);
        // Where cells are huge, different directions lead to the same.
        if !cells.contains(&next) {
            cells.push(next);
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Rng;

    #[test]
    fn scores_are_those_of_redis() {
        // GEOADD and ZSCORE of redis-server 7.0.15.
        for (longitude, latitude, score) in SCORES {
            let place = Place { longitude, latitude };
            assert_eq!(place.score(), score);
            let back = Place::of_score(score);
            assert!(back.distance(place) < 0.6, "{back:?} for {place:?}");
        }
        let palermo = Place { longitude: 13.361389, latitude: 38.115556 };
        let catania = Place { longitude: 15.087269, latitude: 37.502669 };
        assert_eq!(&Place::of_score(palermo.score()).text(), b"sqc8b49rny0");
        let distance = Place::of_score(palermo.score()).distance(Place::of_score(catania.score()));
        assert_eq!(format!("{distance:.4}"), "166274.1516");
    }

    const SCORES: [(f64, f64, f64); 5] = [
        (13.361389, 38.115556, 3479099956230698.0),
        (15.087269, 37.502669, 3479447370796909.0),
        (-122.27652, 37.805186, 1367952638197536.0),
        (-180.0, -85.05112878, 0.0),
        (0.0, 0.0, 3377699720527872.0),
    ];

    #[test]
    fn bits_go_to_and_fro() {
        let mut rng = Rng::new(7);
        for _ in 0..1000 {
            let bits = rng.next_u64() as u32;
            assert_eq!(gather(spread(bits)), bits);
            assert_eq!(gather(spread(bits) << 1), 0);
        }
    }

    /// Whatever lies inside of a shape lies in one of the cells that cover it.
    #[test]
    fn coverings_miss_nothing() {
        let mut rng = Rng::new(11);
        let mut inside = 0;
        for _ in 0..4000 {
            let mut degrees = |max: f64| (rng.unit() * 2.0 - 1.0) * max;
            // Away from the antimeridian and the poles, where Redis's cells miss some places too.
            let centre = Place { longitude: degrees(150.0), latitude: degrees(60.0) };
            let (dx, dy) = (degrees(2.0), degrees(2.0));
            let place = Place { longitude: centre.longitude + dx, latitude: centre.latitude + dy };
            let place = Place::of_score(place.score());
            let size = rng.unit() * 600_000.0;
            for shape in [Shape::Circle(size / 2.0), Shape::Box { width: size, height: size / (1.0 + rng.unit()) }] {
                if shape.distance_inside(centre, place).is_some() {
                    inside += 1;
                    let cells = covering(shape, centre);
                    let score = place.score();
                    let covered = |cell: &Cell| (cell.scores().0..cell.scores().1).contains(&score);
                    assert_eq!(cells.iter().filter(|cell| covered(cell)).count(), 1, "{shape:?} {centre:?} {place:?}");
                }
            }
        }
        assert!(inside > 1000, "{inside}");
    }
}
