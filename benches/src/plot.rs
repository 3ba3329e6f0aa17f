//! Draws cost against the number of services. Both axes are logarithmic, so that constant cost is a
//! horizontal line and linear cost is a diagonal.

use std::fmt::Write as _;

use crate::measure::{Measure, Series};
use crate::spread::Spread;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 220.0;
/// The margin around a panel for titles and numbers.
const MARGIN: f64 = 60.0;
const OURS: &str = "#b7410e";
const THEIRS: &str = "#3b5f8a";

/// One panel: a title, and the measure for a number of services.
type Panel = (&'static str, fn(usize) -> Measure);

const PANELS: [Panel; 3] = [
    ("CPU per spawn, \u{b5}s", Measure::SpawnCpu),
    ("CPU to start, ms", Measure::StartCpu),
    ("private memory, KiB", Measure::Private),
];

/// The drawing with all panels.
pub fn svg(services: &[usize], ours: &Series, theirs: &Series) -> String {
    let width = (WIDTH + MARGIN) * PANELS.len() as f64 + MARGIN;
    let height = HEIGHT + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, (title, measure)) in PANELS.into_iter().enumerate() {
        let x = MARGIN + (WIDTH + MARGIN) * at as f64;
        let _ = writeln!(svg, "<g transform=\"translate({x} {MARGIN})\">");
        let points = |series: &Series| -> Vec<(f64, f64)> {
            let point = |&n: &usize| {
                let samples = series.get(&measure(n))?;
                Some((n as f64, Spread::of(samples).median))
            };
            services.iter().filter_map(point).collect()
        };
        panel(&mut svg, title, &points(ours), &points(theirs));
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// Maps values to coordinates; both ends are powers of ten.
struct Scale {
    low: f64,
    high: f64,
    length: f64,
}

impl Scale {
    fn around(values: impl Iterator<Item = f64> + Clone, length: f64) -> Self {
        let low = values.clone().fold(f64::MAX, f64::min).log10().floor();
        let high = values.fold(f64::MIN_POSITIVE, f64::max).log10().ceil();
        Self {
            low,
            high: high.max(low + 1.0),
            length,
        }
    }

    fn place(&self, value: f64) -> f64 {
        (value.log10() - self.low) / (self.high - self.low) * self.length
    }

    fn powers(&self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|power| 10f64.powi(power))
    }
}

fn panel(svg: &mut String, title: &str, ours: &[(f64, f64)], theirs: &[(f64, f64)]) {
    let all = ours.iter().chain(theirs);
    let across = Scale::around(all.clone().map(|point| point.0), WIDTH);
    let up = Scale::around(all.map(|point| point.1), HEIGHT);
    let _ = writeln!(svg, "<text y=\"-20\" font-weight=\"bold\">{title}</text>");
    for value in up.powers() {
        let y = HEIGHT - up.place(value);
        let _ = writeln!(
            svg,
            "<path d=\"M0 {y:.1}H{WIDTH}\" stroke=\"#ddd\"/>\
             <text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            y + 4.0
        );
    }
    for value in across.powers() {
        let x = across.place(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} 0V{HEIGHT}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>",
            HEIGHT + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">services</text>",
        WIDTH / 2.0,
        HEIGHT + 38.0
    );
    let place = |(n, value)| (across.place(n), HEIGHT - up.place(value));
    let places = |points: &[(f64, f64)]| points.iter().copied().map(place).collect::<Vec<_>>();
    // The names are where the curves are furthest apart, on the outer sides.
    curve(svg, ("Postfix's", -8.0), THEIRS, &places(theirs));
    curve(svg, ("ours", 18.0), OURS, &places(ours));
}

/// A line through these points. Its name is `below` units below the first point.
fn curve(svg: &mut String, (name, below): (&str, f64), colour: &str, places: &[(f64, f64)]) {
    let words: Vec<String> = places
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        words.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
        );
    }
    if let Some((x, y)) = places.first() {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            x + 6.0,
            y + below
        );
    }
}
