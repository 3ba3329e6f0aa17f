//! Shrinks a failing list of happenings (delta debugging: Zeller and Hildebrandt, 2002).

use crate::happening::Happening;

/// The shortest list found that still `fails`.
pub fn shrink(list: &[Happening], fails: impl Fn(&[Happening]) -> bool) -> Vec<Happening> {
    let mut list = list.to_vec();
    loop {
        let before = list.clone();
        leave_out(&mut list, &fails);
        simplify(&mut list, &fails);
        if list == before {
            return list;
        }
    }
}

/// Removes parts that are not needed, in smaller and smaller chunks.
pub fn leave_out<T: Clone>(list: &mut Vec<T>, fails: &impl Fn(&[T]) -> bool) {
    let mut chunk = list.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < list.len() {
            let end = (at + chunk).min(list.len());
            let shorter = [&list[..at], &list[end..]].concat();
            if fails(&shorter) {
                *list = shorter
            } else {
                at = end
            }
        }
        chunk /= 2;
    }
}

/// Replaces happenings by simpler ones.
fn simplify(list: &mut [Happening], fails: &impl Fn(&[Happening]) -> bool) {
    for at in 0..list.len() {
        let given = list[at];
        let simpler = given.simpler().into_iter().find(|&simpler| {
            list[at] = simpler;
            fails(list)
        });
        list[at] = simpler.unwrap_or(given);
    }
}
