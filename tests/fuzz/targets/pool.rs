//! The messages between the master and a child of an ordered pool, from a stream that is split at
//! any byte.

use master::protocol::pool::{Assembler, Message, Order, Report, SIZE};

/// The first byte is the length of the first piece of the stream, and so on; the pieces are the
/// stream.
pub fn run(input: &[u8]) {
    let mut stream = Vec::new();
    let mut assembled = Vec::new();
    let mut assembler = Assembler::default();
    let mut rest = input;
    while let Some((&length, after)) = rest.split_first() {
        let (mut piece, after) = after.split_at(after.len().min(length.into()));
        rest = after;
        stream.extend_from_slice(piece);
        while !piece.is_empty() {
            assembled.extend(assembler.take(&mut piece));
        }
    }
    let whole = stream.chunks_exact(SIZE).map(|chunk| {
        let message: Message = chunk.try_into().expect("a whole chunk");
        message
    });
    assert_eq!(assembled, whole.collect::<Vec<_>>());
    assembled.into_iter().for_each(check);
}

/// A message is an order, a report, or invalid. Encoding the decoded message gives the same bytes.
fn check(message: Message) {
    let order = Order::decode(message);
    let report = Report::decode(message);
    assert!(order.is_none() || report.is_none());
    if let Some(order) = order {
        assert_eq!(Order::decode(order.encode()), Some(order));
    }
    if let Some(report) = report {
        let [_, a, b, c, d, _] = message;
        assert_eq!(report.encode(i32::from_ne_bytes([a, b, c, d])), message);
    }
}
