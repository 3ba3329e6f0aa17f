//! An answer's body, whose parts several answers share. It is sent in small portions, so that a slow
//! client has no copy of its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};

/// Bytes that are handed over for sending at a time.
const PORTION: usize = 16 * 1024;

/// A body in parts.
#[derive(Debug, Default)]
pub struct Shared {
    /// None of them is empty.
    parts: VecDeque<Bytes>,
}

impl Shared {
    pub fn new(parts: impl IntoIterator<Item = Bytes>) -> Self {
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        Self {
            parts: parts.collect(),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Shared {
    fn from(text: T) -> Self {
        Self::new([text.into()])
    }
}

impl Body for Shared {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(part) = self.parts.front_mut() else {
            return Poll::Ready(None);
        };
        let portion = part.split_to(part.len().min(PORTION));
        if part.is_empty() {
            self.parts.pop_front();
        }
        Poll::Ready(Some(Ok(Frame::data(portion))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let length: usize = self.parts.iter().map(Bytes::len).sum();
        SizeHint::with_exact(length as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use tokio::runtime::Builder;

    #[test]
    fn all_parts_are_sent_in_small_portions_of_the_same_memory() {
        let part = Bytes::from(vec![b'a'; 3 * PORTION + 1]);
        let mut body = Shared::new([part.clone(), Bytes::new(), "end".into()]);
        assert_eq!(body.size_hint().exact(), Some(part.len() as u64 + 3));
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let mut sent = Vec::new();
        while let Some(frame) = runtime.block_on(body.frame()) {
            let portion = frame.expect("no error").into_data().expect("data");
            assert!(!portion.is_empty() && portion.len() <= PORTION);
            if sent.len() < part.len() {
                assert!(part.as_ptr_range().contains(&portion.as_ptr()));
            }
            sent.extend_from_slice(&portion);
        }
        assert!(body.is_end_stream());
        assert_eq!(sent, [&part[..], b"end"].concat());
    }
}
