//! `wukongim chat`: two people talk in two terminals, and see when the server has a message safely.

mod history;
mod room;

use std::io::{self, BufRead};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use room::{Line, Room};

/// Talks to one person (or a group) from the terminal
///
/// In one terminal:      wukongim chat --uid alice --to bob
/// In another one:       wukongim chat --uid bob --to alice
///
/// Each line typed is a message. "(seq 5 ✓)" says that the server stored it as the fifth of this conversation: it will
/// be neither lost nor doubled. When the connection breaks, the chat connects again and sends what was not confirmed
/// once more; the server recognises it. /quit, or the end of input (Ctrl-D), ends the chat.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Who you are
    #[arg(long)]
    pub uid: String,

    /// Whom you talk to
    #[arg(long)]
    pub to: String,

    /// --to names a group, which exists and has you as a member
    #[arg(long)]
    pub group: bool,

    /// Where the server takes clients
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5100")]
    pub addr: String,

    /// Its HTTP API, for the last messages at the start
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5001")]
    pub http: String,

    /// Your token, where the server asks for one (POST /user/token stores it)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub token: String,

    /// How many of the last messages to show at the start
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub history: u32,

    /// Stay this long after the end of input, to see answers (for scripts)
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub linger: u64,
}

/// Runs the chat until its user leaves. Code 0: everything sent was confirmed; 1: not; 2: it never began.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let (lines, typed) = mpsc::channel();
    let mut room = match Room::enter(args, io::stdout()) {
        Ok(room) => room,
        Err(why) => {
            eprintln!("chat: {why}");
            return ExitCode::from(2);
        }
    };
    // A thread that waits for the terminal ends with the process.
    std::thread::spawn(move || read_lines(io::stdin().lock(), &lines));
    match room.stay(&typed, Duration::from_secs(args.linger)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("chat: {why}");
            ExitCode::from(1)
        }
    }
}

fn read_lines(input: impl BufRead, lines: &mpsc::Sender<Line>) {
    for line in input.split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        let sent = match line {
            "" => Ok(()),
            "/quit" => break,
            text => lines.send(Line::Text(text.to_owned())),
        };
        if sent.is_err() {
            return;
        }
    }
    let _ = lines.send(Line::End);
}

#[cfg(test)]
mod tests;
