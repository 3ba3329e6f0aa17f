//! The page with ten minutes of history, for which statusd would need ten minutes. A small server
//! provides the page's own files and an invented history.
//!
//! `MASTER_TEST_SCREENSHOTS=DIRECTORY` keeps the pictures. Those in `docs` are made with
//!
//! ```text
//! MASTER_TEST_SCREENSHOTS=docs cargo test --test statusd gallery::the_pictures_of_the_manual
//! ```

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use master::status::{Document, Service};
use serde_json::{Value, json};
use testkit::documents::{calm, crowd, failed_reload, loaded, stressed, throttled};
use testkit::test;

use crate::browser::needs_chromium;
use crate::browser::{DESK, Viewport, dom, draw};

/// Maximum number of samples on the page.
const SAMPLES: u32 = 300;

const PHONE: Viewport = Viewport {
    width: 390,
    height: 844,
    dark: false,
};

/// Serves the page as long as the process lives.
fn gallery(document: &Document) -> SocketAddr {
    gallery_with(document, "")
}

/// Adds a script to the page, which acts like a user.
fn gallery_with(document: &Document, visitor: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let view = view(document).to_string();
    let visitor = format!("setTimeout(() => {{ {visitor} }}, 1000);");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A browser may connect without a request.
            let _ = serve(stream.expect("a client"), &view, &visitor);
        }
    });
    address
}

fn serve(mut stream: TcpStream, view: &str, visitor: &str) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("/");
    let (kind, body) = match path.split('?').next() {
        Some("/page.css") => ("text/css", file("page.css")),
        Some("/page.js") => ("text/javascript", file("page.js")),
        Some("/view.json") => ("application/json", view.to_owned()),
        Some("/visitor.js") => ("text/javascript", visitor.to_owned()),
        _ => (
            "text/html",
            file("index.html") + "<script src='visitor.js'></script>",
        ),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

fn file(name: &str) -> String {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("statusd/src/page");
    std::fs::read_to_string(pages.join(name)).expect("a file of the page")
}

/// statusd's answer after ten minutes.
fn view(document: &Document) -> Value {
    let services: Vec<Value> = document.services.iter().map(past).collect();
    json!({
        "problem": null,
        "age": 0.5,
        "interval": 2,
        "history": {"taken": SAMPLES, "since": 0, "kept": SAMPLES, "services": services},
        "document": document,
    })
}

/// Load that rises from a third of the time on, with waves.
fn past(service: &Service) -> Value {
    let now = f64::from(service.busy);
    let at = |n: u32| {
        let time = f64::from(n) / f64::from(SAMPLES - 1);
        let rise = 1.0 / (1.0 + (-24.0 * (time - 0.55)).exp());
        let phase = f64::from(service.place);
        let waves = (time * 40.0 + phase).sin() + (time * 93.0 + phase * 2.0).sin();
        let busy = now * (0.33 + 0.67 * rise) + waves * now.sqrt() * 0.6 * (1.0 - time);
        let most = if service.maximum > 0 {
            service.maximum
        } else {
            u32::MAX
        };
        (busy.round().max(0.0) as u32).min(most)
    };
    let busy: Vec<u32> = (0..SAMPLES).map(at).collect();
    let is_full = |busy: u32| service.maximum > 1 && busy >= service.maximum;
    let mut stressed = false;
    let marks = (0..).zip(&busy).map(|(n, &busy)| {
        stressed |= service.stress_until.is_some() && is_full(busy);
        let throttled = service.throttled_until.is_some() && n > 250;
        u8::from(is_full(busy)) + 2 * u8::from(throttled) + 4 * u8::from(stressed)
    });
    json!({
        "endpoint": service.endpoint,
        "type": service.kind,
        "marks": marks.collect::<Vec<_>>(),
        "busy": busy,
    })
}

/// Draws pages: the name, the document, the opened service, and the display settings.
fn draw_all(pages: &[(&str, Document, &str, Viewport)]) -> Vec<usize> {
    let sizes = pages.iter().map(|(name, document, opened, look)| {
        let url = format!("http://{}/#{opened}", gallery(document));
        draw(&url, *look, &format!("statusd-{name}"))
    });
    sizes.collect()
}

fn dark(look: Viewport) -> Viewport {
    Viewport { dark: true, ..look }
}

/// Several problems at once.
fn incident() -> Document {
    let mut document = stressed();
    document.services[6] = throttled().services[6].clone();
    document
}

#[test]
fn the_pictures_of_the_manual_are_small() {
    needs_chromium();
    let short = Viewport {
        height: 640,
        ..DESK
    };
    let sizes = draw_all(&[
        ("incident", incident(), "", short),
        ("incident-dark", incident(), "", dark(short)),
        ("failed-reload", failed_reload(), "", short),
        ("phone", incident(), "", PHONE),
    ]);
    assert!(sizes.iter().all(|size| *size < 150_000), "{sizes:?}");
}

#[test]
fn the_page_can_be_drawn_in_light_and_dark_on_a_desk_and_on_a_phone() {
    needs_chromium();
    let tall = Viewport {
        height: 1400,
        ..DESK
    };
    draw_all(&[
        ("calm", calm(), "", DESK),
        ("calm-dark", calm(), "", dark(DESK)),
        ("load", loaded(), "", DESK),
        ("children", calm(), "smtp/inet", DESK),
        ("explained", incident(), "smtp/inet", DESK),
        ("children-phone", calm(), "smtp/inet", dark(PHONE)),
        ("crowd", crowd(500), "", tall),
    ]);
}

/// The page after the script has run.
#[track_caller]
fn visited(document: &Document, visitor: &str) -> String {
    dom(&format!("http://{}/", gallery_with(document, visitor)))
}

#[test]
fn a_click_shows_the_children_and_another_hides_them() {
    needs_chromium();
    let once = "document.querySelector('th button').click();";
    let page = visited(&calm(), once);
    assert!(
        page.contains("aria-label=\"Children of smtp/inet\""),
        "{page}"
    );
    assert!(page.contains("<td>10000</td><td>busy</td>"), "{page}");
    let page = visited(&calm(), &once.repeat(2));
    assert!(!page.contains("aria-expanded=\"true\""), "{page}");
    assert!(page.contains("id=\"details-0\" hidden=\"\""), "{page}");
}

#[test]
fn a_filter_leaves_those_that_it_names() {
    needs_chromium();
    let page = visited(
        &incident(),
        "const filter = document.getElementById('filter');
        filter.value = 'THROTTLED';
        filter.dispatchEvent(new Event('input', { bubbles: true }));",
    );
    assert_eq!(page.matches("role=\"rowheader\"").count(), 1);
    assert!(page.contains("policyd/unix"), "{page}");
}

#[test]
fn who_has_the_focus_keeps_it_when_the_order_changes() {
    needs_chromium();
    let page = visited(
        &calm(),
        "[...document.querySelectorAll('th button')].at(-1).focus();
        const order = document.getElementById('order');
        order.value = 'name';
        order.dispatchEvent(new Event('input', { bubbles: true }));
        document.body.dataset.focus = document.activeElement.innerText;",
    );
    assert!(page.contains("data-focus=\"policyd/unix"), "{page}");
    let name = |name: &str| page.find(&format!("{name}</span>")).expect("a service");
    assert!(name("policyd/unix") < name("qmgr/unix"), "{page}");
}
