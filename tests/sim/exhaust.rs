use crate::options::Options;
pub fn run(_: &Options) -> usize {
    0
}
