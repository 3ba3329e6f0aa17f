//! Standard output, which remembers that it could not be written.

use std::fs::File;
use std::io::{self, LineWriter, Write};

use anyhow::{Context, Result};
use master::output::standard_output;

/// Standard output, written by the line.
#[derive(Debug)]
pub struct Output {
    file: LineWriter<File>,
    /// The first error. It is told apart from errors of the command itself.
    failure: Option<io::Error>,
}

impl Output {
    /// # Errors
    /// The system's.
    pub fn standard() -> Result<Self> {
        let file = standard_output().context("standard output")?;
        Ok(Self {
            file: LineWriter::new(file),
            failure: None,
        })
    }

    /// Writes what is left, and returns the first error.
    pub fn finish(mut self) -> Option<io::Error> {
        // The error is kept.
        let _ = self.flush();
        self.failure
    }

    fn keep<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failure.get_or_insert(error);
            }
            kind.into()
        })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        self.keep(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        self.keep(flushed)
    }
}
