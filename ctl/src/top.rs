//! `masterctl top`: shows the services of a running master continuously.
//!
//! `state` holds the data and the user's choices, `draw` renders them. Neither accesses the
//! terminal.

mod draw;
mod state;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use master::status::Document;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::terminal;
use ratatui::layout::Rect;
use ratatui::{DefaultTerminal, Frame};

use crate::arguments::Arguments;
use crate::connection::MasterClient;
use state::{KeyEffect, State};

/// Interval between two requests.
const INTERVAL: Duration = Duration::from_secs(1);
/// Maximum time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval at which new data is shown while no key is pressed.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);
/// The width of the output if there is no terminal, in characters.
const WIDTH: u16 = 80;

/// The result of a request.
type PollResult = Result<Document, String>;

/// Shows the services until the user quits; with `once`, prints them.
///
/// # Errors
/// There is no configuration or no terminal; with `once`, no master.
pub fn run(arguments: &Arguments, once: bool, out: &mut impl Write) -> Result<ExitCode> {
    let client = MasterClient::new(arguments)?.with_timeout(ANSWER_TIMEOUT);
    if once {
        let mut state = State::default();
        state.update(Ok(client.status()?.document));
        print(&state, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        io::stdout().is_terminal() && io::stdin().is_terminal(),
        "top needs a terminal: print one picture with --once"
    );
    let news = watch(client)?;
    let terminal = ratatui::try_init().context("prepare the terminal")?;
    let result = interact(terminal, &news);
    ratatui::try_restore().context("restore the terminal")?;
    result?;
    Ok(ExitCode::SUCCESS)
}

/// Requests the status in a thread, so that keys work while the master does not answer.
fn watch(client: MasterClient) -> Result<Receiver<PollResult>> {
    let (sender, results) = sync_channel(1);
    std::thread::Builder::new()
        .name("watch".into())
        .spawn(move || poll_master(&client, &sender))
        .context("start a thread")?;
    Ok(results)
}

fn poll_master(client: &MasterClient, sender: &SyncSender<PollResult>) {
    loop {
        let reply = client.status().map(|reply| reply.document);
        let news = reply.map_err(|error| format!("{error:#}"));
        if sender.send(news).is_err() {
            return; // the program ends
        }
        std::thread::sleep(INTERVAL);
    }
}

fn interact(mut terminal: DefaultTerminal, news: &Receiver<PollResult>) -> Result<()> {
    let mut state = State::default();
    loop {
        match news.try_recv() {
            Ok(news) => state.update(news),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                state.update(Err("the connection to the master has ended".into()))
            }
        }
        terminal.draw(|frame: &mut Frame<'_>| {
            draw::draw(&mut state, frame.area(), frame.buffer_mut());
        })?;
        if !event::poll(REFRESH_INTERVAL)? {
            continue;
        }
        if let Event::Key(key) = event::read()? {
            if key.kind == KeyEventKind::Press && state.press(key) == KeyEffect::Leave {
                return Ok(());
            }
        }
    }
}

/// Prints all services as plain text.
fn print(state: &State, out: &mut impl Write) -> io::Result<()> {
    let width = terminal::size().map_or(WIDTH, |(width, _)| width);
    let area = Rect::new(0, 0, width, state.height_of_all());
    let mut picture = Buffer::empty(area);
    draw::services(state, area, &mut picture);
    text(&picture)
        .iter()
        .try_for_each(|line| writeln!(out, "{line}"))
}

/// The lines of a picture.
fn text(picture: &Buffer) -> Vec<String> {
    let width = usize::from(picture.area.width).max(1);
    let lines = picture.content.chunks(width).map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned()
    });
    lines.collect()
}
