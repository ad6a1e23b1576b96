//! Charts: curves over linear or logarithmic axes, and grouped bars, drawn so that one can read them without a
//! table: units on the axes, values at the bars, one colour per engine throughout.

use crate::canvas::{Anchor, Canvas, Rgb, text_width};

/// Colours that stay apart in print and for most colour-blind readers (after Okabe and Ito).
pub const COLORS: &[Rgb] = &[
    0xd5_5e00, 0x00_72b2, 0x00_9e73, 0xcc_79a7, 0xe6_9f00, 0x56_b4e9, 0x60_6060, 0x8c_510a,
    0x5e_3c99,
];

const INK: Rgb = 0x22_2222;
const GREY: Rgb = 0x77_7777;
const GRID: Rgb = 0xe4_e4e4;

/// How an axis maps values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps.
    Linear,
    /// Equal factors.
    Log,
    /// Quantiles: «one in so many», towards the tail.
    Quantile,
}

/// A named curve.
#[derive(Debug, Clone)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// Its colour.
    pub color: Rgb,
    /// Points in the order they are joined.
    pub points: Vec<(f64, f64)>,
    /// Mark each point.
    pub marks: bool,
}

/// A chart of curves.
#[derive(Debug, Clone)]
pub struct Curves {
    /// Heading.
    pub title: String,
    /// What the x axis shows, with unit.
    pub x: (String, Scale),
    /// What the y axis shows, with unit.
    pub y: (String, Scale),
    /// The curves.
    pub series: Vec<Series>,
}

/// A number as a person would write it on an axis: 20k, 1.5M, 0.25.
pub fn short(v: f64) -> String {
    let (v, unit) = match v.abs() {
        a if a >= 1e9 => (v / 1e9, "G"),
        a if a >= 1e6 => (v / 1e6, "M"),
        a if a >= 1e4 => (v / 1e3, "k"),
        _ => (v, ""),
    };
    let digits = match v.abs() {
        a if a >= 100.0 || a == 0.0 => 0,
        a if a >= 10.0 => 1,
        a if a >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{v:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}

/// Round steps that split a range in about `n`.
fn ticks(lo: f64, hi: f64, n: usize) -> Vec<f64> {
    let raw = (hi - lo) / n as f64;
    if !(raw.is_finite() && raw > 0.0) {
        return vec![lo];
    }
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .iter()
        .map(|m| m * power)
        .find(|s| *s >= raw)
        .unwrap_or(10.0 * power);
    let mut at = (lo / step).ceil() * step;
    let mut ticks = Vec::new();
    while at <= hi + step * 1e-9 && ticks.len() < 50 {
        ticks.push(at);
        at += step;
    }
    ticks
}

struct Axis {
    scale: Scale,
    lo: f64,
    hi: f64,
    from: f32,
    to: f32,
}

impl Axis {
    fn map(scale: Scale, v: f64) -> f64 {
        match scale {
            Scale::Linear => v,
            Scale::Log => v.max(1e-12).log10(),
            Scale::Quantile => -(1.0 - v).max(1e-9).log10(),
        }
    }

    fn fit(scale: Scale, values: impl Iterator<Item = f64>, from: f32, to: f32) -> Axis {
        let mapped: Vec<f64> = values
            .filter(|v| v.is_finite())
            .map(|v| Axis::map(scale, v))
            .collect();
        let mut lo = mapped.iter().copied().fold(f64::MAX, f64::min);
        let mut hi = mapped.iter().copied().fold(f64::MIN, f64::max);
        if mapped.is_empty() {
            (lo, hi) = (0.0, 1.0);
        }
        match scale {
            // Linear axes begin at zero: cut-off axes lie.
            Scale::Linear => (lo, hi) = (lo.min(0.0), hi * 1.05),
            Scale::Log => (lo, hi) = (lo - 0.05, hi + 0.05),
            Scale::Quantile => lo = 0.0,
        }
        if hi - lo < 1e-9 {
            hi = lo + 1.0;
        }
        Axis {
            scale,
            lo,
            hi,
            from,
            to,
        }
    }

    fn at(&self, v: f64) -> f32 {
        let share = (Axis::map(self.scale, v) - self.lo) / (self.hi - self.lo);
        self.from + (self.to - self.from) * share.clamp(-0.1, 1.1) as f32
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => ticks(self.lo, self.hi, 6)
                .into_iter()
                .map(|v| (v, short(v)))
                .collect(),
            Scale::Log => {
                let decades = self.hi - self.lo;
                let steps: &[f64] = if decades > 4.0 {
                    &[1.0]
                } else if decades > 1.5 {
                    &[1.0, 2.0, 5.0]
                } else {
                    &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]
                };
                (self.lo.floor() as i32..=self.hi.ceil() as i32)
                    .flat_map(|d| steps.iter().map(move |s| s * 10f64.powi(d)))
                    .filter(|v| (self.lo..=self.hi).contains(&v.log10()))
                    .map(|v| (v, short(v)))
                    .collect()
            }
            Scale::Quantile => [
                (0.0, "0"),
                (0.5, "50 %"),
                (0.9, "90 %"),
                (0.99, "99 %"),
                (0.999, "99.9 %"),
                (0.9999, "99.99 %"),
                (0.99999, "99.999 %"),
                (0.999999, "99.9999 %"),
            ]
            .into_iter()
            .filter(|(q, _)| Axis::map(Scale::Quantile, *q) <= self.hi + 1e-9)
            .map(|(q, t)| (q, t.to_owned()))
            .collect(),
        }
    }
}

/// Rows of legend entries that fit the width; returns the y below them.
fn legend(c: &mut Canvas, entries: &[(String, Rgb)], left: f32, right: f32, mut y: f32) -> f32 {
    let mut x = left;
    for (name, color) in entries {
        let width = 22.0 + text_width(name, 11.0) + 16.0;
        if x + width > right && x > left {
            x = left;
            y += 16.0;
        }
        c.rect(x, y - 8.0, 16.0, 8.0, *color);
        c.text(x + 21.0, y, 11.0, name, INK, Anchor::Start);
        x += width;
    }
    y + 10.0
}

impl Curves {
    /// Draws it.
    pub fn draw(&self) -> Canvas {
        let (w, h) = (760.0, 440.0);
        let mut c = Canvas::new(w, h);
        let (left, right, bottom) = (72.0, w - 24.0, h - 52.0);
        c.text(left, 26.0, 15.0, &self.title, INK, Anchor::Start);
        let entries: Vec<(String, Rgb)> = self
            .series
            .iter()
            .map(|s| (s.name.clone(), s.color))
            .collect();
        let top = legend(&mut c, &entries, left, right, 48.0) + 6.0;
        let all = || self.series.iter().flat_map(|s| s.points.iter());
        let x = Axis::fit(self.x.1, all().map(|p| p.0), left, right);
        let y = Axis::fit(self.y.1, all().map(|p| p.1), bottom, top);
        for (v, text) in x.ticks() {
            let at = x.at(v);
            c.line(vec![(at, top), (at, bottom)], GRID, 1.0, false);
            c.text(at, bottom + 16.0, 11.0, &text, GREY, Anchor::Middle);
        }
        for (v, text) in y.ticks() {
            let at = y.at(v);
            c.line(vec![(left, at), (right, at)], GRID, 1.0, false);
            c.text(left - 7.0, at + 4.0, 11.0, &text, GREY, Anchor::End);
        }
        c.line(
            vec![(left, top), (left, bottom), (right, bottom)],
            GREY,
            1.0,
            false,
        );
        c.text(
            (left + right) / 2.0,
            h - 14.0,
            12.0,
            &self.x.0,
            INK,
            Anchor::Middle,
        );
        c.upright(20.0, (top + bottom) / 2.0, 12.0, &self.y.0, INK);
        for series in &self.series {
            let points: Vec<(f32, f32)> = series
                .points
                .iter()
                .map(|p| (x.at(p.0), y.at(p.1)))
                .collect();
            if series.marks || points.len() == 1 {
                points
                    .iter()
                    .for_each(|p| c.disc(p.0, p.1, 3.0, series.color));
            }
            c.line(points, series.color, 2.0, false);
        }
        c
    }
}

/// One bar: value, smallest, largest.
pub type Bar = Option<(f64, f64, f64)>;

/// A chart of grouped bars.
#[derive(Debug, Clone)]
pub struct Bars {
    /// Heading.
    pub title: String,
    /// What the bars show, with unit.
    pub unit: String,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// Name, colour, and a bar per group.
    pub series: Vec<(String, Rgb, Vec<Bar>)>,
}

impl Bars {
    /// Draws it: horizontal bars, so that long names of steps can be read.
    pub fn draw(&self) -> Canvas {
        let bar = 15.0;
        let gap = 14.0;
        let label = self
            .groups
            .iter()
            .map(|g| text_width(g, 11.0))
            .fold(60.0f32, f32::max)
            + 16.0;
        let entries: Vec<(String, Rgb)> = self.series.iter().map(|s| (s.0.clone(), s.1)).collect();
        let group_height = bar * self.series.len() as f32 + gap;
        let w = 760.0f32.max(label + 420.0);
        let mut probe = Canvas::new(w, 10.0);
        let top = legend(&mut probe, &entries, 20.0, w - 20.0, 48.0) + 6.0;
        let h = top + group_height * self.groups.len() as f32 + 46.0;
        let mut c = Canvas::new(w, h);
        c.text(20.0, 26.0, 15.0, &self.title, INK, Anchor::Start);
        legend(&mut c, &entries, 20.0, w - 20.0, 48.0);
        let bottom = h - 46.0;
        let values = self.series.iter().flat_map(|s| s.2.iter().flatten());
        let x = Axis::fit(Scale::Linear, values.map(|b| b.2), label, w - 80.0);
        for (v, text) in x.ticks() {
            let at = x.at(v);
            c.line(vec![(at, top), (at, bottom)], GRID, 1.0, false);
            c.text(at, bottom + 16.0, 11.0, &text, GREY, Anchor::Middle);
        }
        c.text(
            (label + w - 80.0) / 2.0,
            h - 10.0,
            12.0,
            &self.unit,
            INK,
            Anchor::Middle,
        );
        for (g, group) in self.groups.iter().enumerate() {
            let y = top + gap / 2.0 + g as f32 * group_height;
            let middle = y + bar * self.series.len() as f32 / 2.0 + 4.0;
            c.text(label - 8.0, middle, 11.0, group, INK, Anchor::End);
            for (s, (_, color, bars)) in self.series.iter().enumerate() {
                let Some((value, min, max)) = bars.get(g).copied().flatten() else {
                    continue;
                };
                let y = y + s as f32 * bar;
                c.rect(label, y + 1.0, x.at(value) - label, bar - 2.0, *color);
                // The spread over the rounds.
                let middle = y + bar / 2.0;
                if max > min {
                    c.line(
                        vec![(x.at(min), middle), (x.at(max), middle)],
                        INK,
                        1.2,
                        false,
                    );
                    for end in [min, max] {
                        c.line(
                            vec![(x.at(end), middle - 3.0), (x.at(end), middle + 3.0)],
                            INK,
                            1.2,
                            false,
                        );
                    }
                }
                c.text(
                    x.at(max.max(value)) + 6.0,
                    middle + 4.0,
                    10.0,
                    &short(value),
                    INK,
                    Anchor::Start,
                );
            }
        }
        c.line(vec![(label, top), (label, bottom)], GREY, 1.0, false);
        c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.25, "0.25"),
            (7.5, "7.5"),
            (1500.0, "1500"),
            (20_000.0, "20k"),
            (1.25e6, "1.25M"),
        ];
        for (v, text) in cases {
            assert_eq!(short(v), text);
        }
    }

    #[test]
    fn axes_cover_their_data() {
        assert_eq!(ticks(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(1.0, 1.0, 5), [1.0]);
        let q = Axis::fit(Scale::Quantile, [0.0, 0.5, 0.999].into_iter(), 0.0, 300.0);
        assert!((q.at(0.9) - 100.0).abs() < 0.5 && (q.at(0.99) - 200.0).abs() < 0.5);
    }

    #[test]
    fn charts_hold_their_names_and_survive_empty_data() {
        let series = |points| Series {
            name: "Redis".to_owned(),
            color: COLORS[0],
            points,
            marks: true,
        };
        for points in [
            vec![],
            vec![(0.5, 100.0)],
            vec![(0.0, 50.0), (0.99, 900.0), (1.0, f64::NAN)],
        ] {
            let chart = Curves {
                title: "GET".to_owned(),
                x: ("quantile".to_owned(), Scale::Quantile),
                y: ("µs".to_owned(), Scale::Log),
                series: vec![series(points)],
            };
            let canvas = chart.draw();
            assert!(canvas.svg().contains("Redis"));
            assert!(!canvas.png().unwrap().is_empty());
        }
        let bars = Bars {
            title: "t".to_owned(),
            unit: "µs".to_owned(),
            groups: vec!["get".to_owned(), "set".to_owned()],
            series: vec![("A".to_owned(), COLORS[0], vec![Some((5.0, 4.0, 6.0)), None])],
        };
        assert!(bars.draw().svg().contains("get"));
    }
}
