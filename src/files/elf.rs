//! What the loader of a program will load: its libraries, found as ld.so(8) finds them, without
//! executing anything. Numbers in a file can be anything, so each is checked where it leads.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::open_regular;

/// The parts of a program that are looked at; linkers make about ten.
const HEADERS_MAX: u64 = 64;
/// The size of one of them, in 64-bit files.
const HEADER: usize = 56;
/// The size of a table of dynamic entries or of names, in bytes; larger ones are cut off.
const TABLE_MAX: u64 = 4 << 20;
/// The libraries that are followed.
const LIBRARIES_MAX: usize = 512;
/// The size of ld.so.cache, in bytes.
const CACHE_MAX: u64 = 64 << 20;

/// Where the loader finds out which library is where.
const CACHE: &str = "/etc/ld.so.cache";

/// What an ELF file of 64 bits, little endian, says of itself (elf(5)).
#[derive(Debug, Default, PartialEq)]
pub(super) struct Elf {
    machine: u64,
    pub(super) interpreter: Option<PathBuf>,
    needed: Vec<Vec<u8>>,
    /// Directories of `RUNPATH`, or of the older `RPATH`.
    paths: Vec<Vec<u8>>,
}

/// Types of program headers, and tags of dynamic entries.
const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

impl Elf {
    /// `None` for a file of another kind.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0)?;
        if !head.starts_with(b"\x7fELF\x02\x01") {
            return Ok(None);
        }
        let (at, size, count) = (
            number(&head, 32, 8),
            number(&head, 54, 2),
            number(&head, 56, 2),
        );
        let mut elf = Self {
            machine: number(&head, 18, 2),
            ..Self::default()
        };
        let (mut loaded, mut dynamic) = (Vec::new(), None);
        for index in 0..count.min(HEADERS_MAX) {
            let mut header = [0; HEADER];
            file.read_exact_at(&mut header, at.saturating_add(index * size))?;
            let (offset, address, size) = (
                number(&header, 8, 8),
                number(&header, 16, 8),
                number(&header, 32, 8),
            );
            match number(&header, 0, 4) {
                PT_LOAD => loaded.push((address, size, offset)),
                PT_DYNAMIC => dynamic = Some((offset, size)),
                PT_INTERP => {
                    let text = read(file, offset, size.min(4096))?;
                    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
                    elf.interpreter = Some(OsStr::from_bytes(text).into());
                }
                _ => {}
            }
        }
        if let Some((offset, size)) = dynamic {
            elf.read_dynamic(file, &read(file, offset, size)?, &loaded)?;
        }
        Ok(Some(elf))
    }

    fn read_dynamic(
        &mut self,
        file: &File,
        table: &[u8],
        loaded: &[(u64, u64, u64)],
    ) -> io::Result<()> {
        let entries = table.chunks_exact(16);
        let entries = entries.map(|entry| (number(entry, 0, 8), number(entry, 8, 8)));
        let entries: Vec<_> = entries.take_while(|(tag, _)| *tag != 0).collect();
        let value = |wanted: u64| entries.iter().find(|(tag, _)| *tag == wanted).map(|e| e.1);
        let Some((address, size)) = value(DT_STRTAB).zip(value(DT_STRSZ)) else {
            return Ok(());
        };
        let segment = loaded.iter().find(|(start, size, _)| {
            address
                .checked_sub(*start)
                .is_some_and(|within| within < *size)
        });
        let Some((start, _, offset)) = segment else {
            return Ok(());
        };
        let names = read(file, offset.saturating_add(address - start), size)?;
        let name = |at: u64| {
            let name = usize::try_from(at).ok().and_then(|at| names.get(at..))?;
            name.split(|byte| *byte == 0).next().map(<[u8]>::to_vec)
        };
        let needed = entries.iter().filter(|(tag, _)| *tag == DT_NEEDED);
        self.needed = needed.filter_map(|(_, at)| name(*at)).collect();
        let paths = value(DT_RUNPATH).or(value(DT_RPATH)).and_then(name);
        let paths = paths.unwrap_or_default();
        let paths = paths
            .split(|byte| *byte == b':')
            .filter(|path| !path.is_empty());
        self.paths = paths.map(<[u8]>::to_vec).collect();
        Ok(())
    }
}

fn read(file: &File, at: u64, size: u64) -> io::Result<Vec<u8>> {
    let rest = file.metadata()?.len().saturating_sub(at);
    let mut bytes = vec![0; size.min(TABLE_MAX).min(rest) as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// A number in little endian; 0 where there is none.
fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let bytes = at.checked_add(size).and_then(|end| bytes.get(at..end));
    let bytes = bytes.unwrap_or_default().iter().rev();
    bytes.fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Libraries, as the loader finds them.
pub(super) struct Libraries {
    machine: u64,
    cache: Vec<u8>,
    found: Vec<PathBuf>,
    uses_cache: bool,
}

impl Libraries {
    /// The real paths of all libraries of a program, and of the loader's cache if one is found by that.
    pub(super) fn of(program: &Path, elf: Elf) -> Vec<PathBuf> {
        let cache = open_regular(Path::new(CACHE)).and_then(|file| {
            let size = file.metadata()?.len().min(CACHE_MAX);
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        });
        let mut libraries = Self {
            machine: elf.machine,
            cache: cache.unwrap_or_default(),
            found: Vec::new(),
            uses_cache: false,
        };
        let mut names = BTreeSet::new();
        let mut pending = VecDeque::from([(program.to_owned(), elf)]);
        while let Some((user, elf)) = pending.pop_front() {
            for name in &elf.needed {
                if names.len() >= LIBRARIES_MAX || !names.insert(name.clone()) {
                    continue;
                }
                if let Some((path, elf)) = libraries.find(name, &user, &elf.paths) {
                    libraries.found.extend(path.canonicalize());
                    pending.push_back((path, elf));
                }
            }
        }
        if libraries.uses_cache {
            libraries.found.push(CACHE.into());
        }
        libraries.found
    }

    /// A library that `user` needs: by its path, or in these directories, the usual ones or the cache.
    fn find(&mut self, name: &[u8], user: &Path, paths: &[Vec<u8>]) -> Option<(PathBuf, Elf)> {
        let name = Path::new(OsStr::from_bytes(name));
        if name.is_absolute() {
            return self.open(name);
        }
        let origin = user.canonicalize().ok()?.parent()?.to_owned();
        let origin = origin.as_os_str().as_bytes();
        let own = paths.iter().map(|path| {
            let mut path = path.clone();
            for word in [&b"${ORIGIN}"[..], b"$ORIGIN"] {
                if let Some(rest) = path.strip_prefix(word) {
                    path = [origin, rest].concat();
                }
            }
            PathBuf::from(OsStr::from_bytes(&path))
        });
        let usual = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from);
        // The loader asks the cache before the usual directories; without it, it finds these as well.
        let found = own
            .chain(usual)
            .find_map(|directory| self.open(&directory.join(name)));
        found.or_else(|| {
            let cached = cached(&self.cache, name.as_os_str().as_bytes());
            let found = cached.into_iter().find_map(|path| self.open(&path));
            self.uses_cache |= found.is_some();
            found
        })
    }

    /// A file that is a library of the program's architecture.
    fn open(&self, path: &Path) -> Option<(PathBuf, Elf)> {
        let file = open_regular(&path.canonicalize().ok()?).ok()?;
        let elf = Elf::read(&file).ok()??;
        (elf.machine == self.machine).then(|| (path.to_owned(), elf))
    }
}

/// The paths that ld.so.cache has for a name, without those for particular processors.
fn cached(cache: &[u8], wanted: &[u8]) -> Vec<PathBuf> {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    const ENTRIES: usize = 48;
    const ENTRY: usize = 24;
    // An older format can be before it.
    let start = cache
        .windows(MAGIC.len())
        .position(|window| window == MAGIC);
    let cache = start.map_or(&[][..], |start| &cache[start..]);
    let count = number(cache, MAGIC.len(), 4) as usize;
    let text = |at: u64| {
        let text = usize::try_from(at).ok().and_then(|at| cache.get(at..));
        text.unwrap_or_default()
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default()
    };
    let entries = cache
        .get(ENTRIES..)
        .unwrap_or_default()
        .chunks_exact(ENTRY)
        .take(count);
    let is_meant = |entry: &&[u8]| number(entry, 16, 8) == 0 && text(number(entry, 4, 4)) == wanted;
    let found = entries.filter(is_meant);
    found
        .map(|entry| OsStr::from_bytes(text(number(entry, 8, 4))).into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_is_cut_off_or_changed_gives_what_it_can() {
        let cache = std::fs::read(CACHE).unwrap_or_default();
        assert_eq!(cached(b"", b"libc.so.6"), Vec::<PathBuf>::new());
        let Some(libc) = cached(&cache, b"libc.so.6").pop() else {
            return; // another C library
        };
        assert!(libc.is_absolute(), "{libc:?}");
        for end in (0..cache.len()).step_by(cache.len() / 50 + 1) {
            let mut cut = cache[..end].to_vec();
            cached(&cut, b"libc.so.6");
            cut.iter_mut()
                .skip(20)
                .step_by(7)
                .for_each(|byte| *byte = 0xff);
            cached(&cut, b"libc.so.6");
        }
        assert_eq!(cached(&cache, b"libc.so."), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_file_whose_numbers_lead_nowhere_is_read_without_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let head = &whole[..4096];
        for at in 16..512 {
            let mut bytes = head.to_vec();
            bytes[at] = 0xff;
            bytes[(at * 7) % 512] = 0x7f;
            std::fs::write(&path, &bytes).unwrap();
            let _ = Elf::read(&File::open(&path).unwrap());
        }
    }
}
