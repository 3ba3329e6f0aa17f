//! The state that a master hands over to its next version.

use master::upgrade::State;

/// Whatever is read, it is refused or gives a table whose invariants hold.
pub fn run(input: &[u8]) {
    let Ok(state) = State::decode(input) else {
        return;
    };
    if state.unknown_fields(input).is_err() {
        return;
    }
    if let Ok(table) = state.check() {
        let children = table
            .services()
            .map(|(_, service)| service.total() as usize);
        assert_eq!(children.sum::<usize>(), table.living());
    }
}
