//! A canvas that draws the same picture as SVG and as PNG.
//!
//! The one idea: a picture is a list of a few shapes (polyline, rectangle, disc, text). The SVG is those shapes
//! written out; the PNG is the same list filled by `tiny-skia`, with glyph outlines taken from a font that comes
//! with the program, so that a machine without fonts draws the same.

use std::fmt::Write;
use std::sync::OnceLock;
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, PathBuilder, Pixmap, Rect, Stroke, StrokeDash,
    Transform,
};
use ttf_parser::{Face, OutlineBuilder};

/// 0xRRGGBB.
pub type Rgb = u32;

/// Where a text hangs on its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Its left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

#[derive(Debug, Clone)]
enum Shape {
    Line {
        points: Vec<(f32, f32)>,
        color: Rgb,
        width: f32,
        dashed: bool,
    },
    Rect {
        x: f32,
        y: f32,
        w: f32,
        h: f32,
        color: Rgb,
    },
    Disc {
        x: f32,
        y: f32,
        r: f32,
        color: Rgb,
    },
    Text {
        x: f32,
        y: f32,
        size: f32,
        text: String,
        color: Rgb,
        anchor: Anchor,
        upright: bool,
    },
}

/// A picture.
#[derive(Debug, Clone)]
pub struct Canvas {
    /// Width in points.
    pub width: f32,
    /// Height in points.
    pub height: f32,
    shapes: Vec<Shape>,
}

fn face() -> Option<&'static Face<'static>> {
    static FACE: OnceLock<Option<Face<'static>>> = OnceLock::new();
    FACE.get_or_init(|| Face::parse(dejavu::sans::regular(), 0).ok())
        .as_ref()
}

/// Width of a text in points.
pub fn text_width(text: &str, size: f32) -> f32 {
    let Some(face) = face() else {
        return 0.6 * size * text.chars().count() as f32;
    };
    let units: u32 = text
        .chars()
        .map(|c| {
            u32::from(
                face.glyph_index(c)
                    .and_then(|g| face.glyph_hor_advance(g))
                    .unwrap_or(0),
            )
        })
        .sum();
    units as f32 * size / f32::from(face.units_per_em())
}

/// Turns a glyph's outline into a path at its place.
struct Glyph<'a> {
    path: &'a mut PathBuilder,
    scale: f32,
    x: f32,
    y: f32,
    upright: bool,
}

impl Glyph<'_> {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        let (x, y) = (x * self.scale, y * self.scale);
        // Upright text runs from bottom to top: a quarter turn to the left.
        if self.upright {
            (self.x - y, self.y - x)
        } else {
            (self.x + x, self.y - y)
        }
    }
}

impl OutlineBuilder for Glyph<'_> {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }
    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }
    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }
    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }
    fn close(&mut self) {
        self.path.close();
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

impl Canvas {
    /// An empty, white one.
    pub fn new(width: f32, height: f32) -> Canvas {
        let mut canvas = Canvas {
            width,
            height,
            shapes: Vec::new(),
        };
        canvas.rect(0.0, 0.0, width, height, 0xff_ffff);
        canvas
    }

    /// A line through points.
    pub fn line(&mut self, points: Vec<(f32, f32)>, color: Rgb, width: f32, dashed: bool) {
        if points.len() > 1 && points.iter().all(|p| p.0.is_finite() && p.1.is_finite()) {
            self.shapes.push(Shape::Line {
                points,
                color,
                width,
                dashed,
            });
        }
    }

    /// A filled rectangle.
    pub fn rect(&mut self, x: f32, y: f32, w: f32, h: f32, color: Rgb) {
        if w > 0.0 && h > 0.0 && [x, y, w, h].iter().all(|v| v.is_finite()) {
            self.shapes.push(Shape::Rect { x, y, w, h, color });
        }
    }

    /// A filled disc.
    pub fn disc(&mut self, x: f32, y: f32, r: f32, color: Rgb) {
        if x.is_finite() && y.is_finite() {
            self.shapes.push(Shape::Disc { x, y, r, color });
        }
    }

    /// A text whose base line passes through the point.
    pub fn text(&mut self, x: f32, y: f32, size: f32, text: &str, color: Rgb, anchor: Anchor) {
        self.shapes.push(Shape::Text {
            x,
            y,
            size,
            text: text.to_owned(),
            color,
            anchor,
            upright: false,
        });
    }

    /// A text that runs upwards.
    pub fn upright(&mut self, x: f32, y: f32, size: f32, text: &str, color: Rgb) {
        let anchor = Anchor::Middle;
        self.shapes.push(Shape::Text {
            x,
            y,
            size,
            text: text.to_owned(),
            color,
            anchor,
            upright: true,
        });
    }

    /// As SVG.
    pub fn svg(&self) -> String {
        let (w, h) = (self.width, self.height);
        let mut t = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
             font-family=\"DejaVu Sans, Verdana, sans-serif\">\n"
        );
        for shape in &self.shapes {
            // A String takes any write.
            let _ = match shape {
                Shape::Line {
                    points,
                    color,
                    width,
                    dashed,
                } => {
                    let points: Vec<String> = points
                        .iter()
                        .map(|(x, y)| format!("{x:.1},{y:.1}"))
                        .collect();
                    let dash = if *dashed {
                        " stroke-dasharray=\"6 4\""
                    } else {
                        ""
                    };
                    writeln!(
                        t,
                        "<polyline points=\"{}\" fill=\"none\" stroke=\"#{color:06x}\" stroke-width=\"{width}\" \
                         stroke-linejoin=\"round\"{dash}/>",
                        points.join(" ")
                    )
                }
                Shape::Rect { x, y, w, h, color } => writeln!(
                    t,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" fill=\"#{color:06x}\"/>"
                ),
                Shape::Disc { x, y, r, color } => {
                    writeln!(
                        t,
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\" fill=\"#{color:06x}\"/>"
                    )
                }
                Shape::Text {
                    x,
                    y,
                    size,
                    text,
                    color,
                    anchor,
                    upright,
                } => {
                    let anchor = match anchor {
                        Anchor::Start => "start",
                        Anchor::Middle => "middle",
                        Anchor::End => "end",
                    };
                    let turn = if *upright {
                        format!(" transform=\"rotate(-90 {x:.1} {y:.1})\"")
                    } else {
                        String::new()
                    };
                    writeln!(
                        t,
                        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"#{color:06x}\" \
                         text-anchor=\"{anchor}\"{turn}>{}</text>",
                        escape(text)
                    )
                }
            };
        }
        t.push_str("</svg>\n");
        t
    }

    /// As PNG, two pixels a point.
    pub fn png(&self) -> Result<Vec<u8>, String> {
        let scale = 2.0;
        let mut map = Pixmap::new((self.width * scale) as u32, (self.height * scale) as u32)
            .ok_or("a picture of no or too great size")?;
        let transform = Transform::from_scale(scale, scale);
        for shape in &self.shapes {
            let mut paint = Paint {
                anti_alias: true,
                ..Paint::default()
            };
            let color =
                |rgb: Rgb| Color::from_rgba8((rgb >> 16) as u8, (rgb >> 8) as u8, rgb as u8, 255);
            match shape {
                Shape::Line {
                    points,
                    color: rgb,
                    width,
                    dashed,
                } => {
                    paint.set_color(color(*rgb));
                    let mut path = PathBuilder::new();
                    path.move_to(points[0].0, points[0].1);
                    points[1..].iter().for_each(|p| path.line_to(p.0, p.1));
                    let stroke = Stroke {
                        width: *width,
                        line_cap: LineCap::Butt,
                        line_join: LineJoin::Round,
                        dash: if *dashed {
                            StrokeDash::new(vec![6.0, 4.0], 0.0)
                        } else {
                            None
                        },
                        ..Stroke::default()
                    };
                    if let Some(path) = path.finish() {
                        map.stroke_path(&path, &paint, &stroke, transform, None);
                    }
                }
                Shape::Rect {
                    x,
                    y,
                    w,
                    h,
                    color: rgb,
                } => {
                    paint.set_color(color(*rgb));
                    if let Some(rect) = Rect::from_xywh(*x, *y, *w, *h) {
                        map.fill_rect(rect, &paint, transform, None);
                    }
                }
                Shape::Disc {
                    x,
                    y,
                    r,
                    color: rgb,
                } => {
                    paint.set_color(color(*rgb));
                    if let Some(path) = PathBuilder::from_circle(*x, *y, *r) {
                        map.fill_path(&path, &paint, FillRule::Winding, transform, None);
                    }
                }
                Shape::Text {
                    x,
                    y,
                    size,
                    text,
                    color: rgb,
                    anchor,
                    upright,
                } => {
                    let Some(face) = face() else { continue };
                    paint.set_color(color(*rgb));
                    let width = text_width(text, *size);
                    let back = match anchor {
                        Anchor::Start => 0.0,
                        Anchor::Middle => width / 2.0,
                        Anchor::End => width,
                    };
                    let (mut x, mut y) = if *upright {
                        (*x, *y + back)
                    } else {
                        (*x - back, *y)
                    };
                    let scale = size / f32::from(face.units_per_em());
                    let mut path = PathBuilder::new();
                    for c in text.chars() {
                        let Some(glyph) = face.glyph_index(c) else {
                            continue;
                        };
                        face.outline_glyph(
                            glyph,
                            &mut Glyph {
                                path: &mut path,
                                scale,
                                x,
                                y,
                                upright: *upright,
                            },
                        );
                        let advance = f32::from(face.glyph_hor_advance(glyph).unwrap_or(0)) * scale;
                        if *upright { y -= advance } else { x += advance }
                    }
                    if let Some(path) = path.finish() {
                        map.fill_path(&path, &paint, FillRule::Winding, transform, None);
                    }
                }
            }
        }
        map.encode_png().map_err(|e| format!("PNG: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_show_the_same_picture() {
        let mut c = Canvas::new(200.0, 100.0);
        c.rect(10.0, 10.0, 50.0, 50.0, 0xff_0000);
        c.text(100.0, 50.0, 12.0, "a < b & µs", 0, Anchor::Middle);
        c.upright(190.0, 50.0, 12.0, "up", 0);
        c.line(vec![(0.0, 0.0), (100.0, 90.0)], 0x00_8000, 2.0, true);
        c.line(vec![(f32::NAN, 0.0), (1.0, 1.0)], 0, 1.0, false);
        let svg = c.svg();
        assert!(svg.contains("a &lt; b &amp; µs") && !svg.contains("NaN"));
        let map = Pixmap::decode_png(&c.png().unwrap()).unwrap();
        assert_eq!((map.width(), map.height()), (400, 200));
        let red = map.pixel(40, 100).unwrap();
        assert_eq!((red.red(), red.green(), red.blue()), (255, 0, 0));
        // The text left its mark.
        let dark = (0..400)
            .flat_map(|x| (80..110).map(move |y| (x, y)))
            .filter(|&(x, y)| {
                let p = map.pixel(x, y).unwrap();
                p.red() < 100 && p.green() < 100 && p.blue() < 100
            });
        assert!(dark.count() > 50);
        assert!(text_width("mm", 10.0) > text_width("ii", 10.0));
    }
}
