use std::path::PathBuf;

use rstest::rstest;

use super::*;

/// Two files whose numbers are added.
#[derive(Debug)]
struct Numbers([PathBuf; 2]);

#[derive(Debug, thiserror::Error)]
#[error("no number")]
struct NoNumber;

impl Source<2> for Numbers {
    type Made = u32;
    type Error = NoNumber;
    const WORDS: Words = Words {
        counter: "numbers_total",
        taken: "added",
        news: "another sum",
        stays: "the sum stays",
    };

    fn paths(&self) -> [&Path; 2] {
        self.0.each_ref().map(PathBuf::as_path)
    }

    fn make(files: io::Result<[Content; 2]>) -> Result<u32, NoNumber> {
        let files = files.map_err(|_| NoNumber)?;
        let number = |file: &Content| std::str::from_utf8(file).ok()?.parse::<u32>().ok();
        files
            .iter()
            .map(number)
            .sum::<Option<u32>>()
            .ok_or(NoNumber)
    }
}

struct World {
    folder: tempfile::TempDir,
    followed: Arc<Followed<Numbers, 2>>,
    known: Known<2>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["one", "two"].map(|name| folder.path().join(name));
        fs::write(&paths[0], "1").unwrap();
        fs::write(&paths[1], "20").unwrap();
        let followed = Followed::load(Numbers(paths)).unwrap();
        let known = Known::at_start(followed.first);
        let mut world = Self {
            folder,
            followed,
            known,
        };
        // The second look finds that nothing has changed since the start.
        world.look();
        world.look();
        assert!(world.known.read.is_some());
        world
    }

    /// Not in place: another file by the same name is never taken for the same.
    fn replace(&self, name: &str, text: &str) {
        let (new, path) = (self.path("new"), self.path(name));
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The sum in force after another look.
    fn look(&mut self) -> u32 {
        self.known = self.followed.look(self.known);
        **self.followed.current()
    }
}

#[test]
fn what_was_replaced_is_in_force_when_it_rests() {
    let mut world = World::new();
    world.replace("one", "3");
    assert_eq!(world.look(), 21, "it may be half of it");
    world.replace("two", "40");
    assert_eq!(world.look(), 21, "the other one may be half of it");
    assert_eq!(world.look(), 43);
    assert_eq!(world.look(), 43);
}

#[test]
fn content_that_is_of_no_use_changes_nothing_until_it_is_replaced() {
    let mut world = World::new();
    world.replace("one", "many");
    assert_eq!([world.look(), world.look(), world.look()], [21; 3]);
    let refused = world.known;
    world.replace("one", "many");
    assert_eq!([world.look(), world.look()], [21; 2]);
    assert_ne!(world.known.read, refused.read, "it was read again");
    assert_eq!(world.known.content, refused.content, "and is nothing new");
    world.replace("one", "5");
    assert_eq!([world.look(), world.look()], [21, 25]);
}

#[test]
fn a_file_that_is_gone_changes_nothing_until_it_is_back() {
    let mut world = World::new();
    fs::remove_file(world.path("two")).unwrap();
    assert_eq!([world.look(), world.look(), world.look()], [21; 3]);
    assert_eq!(world.known.read, None, "it is tried again");
    world.replace("two", "60");
    assert_eq!([world.look(), world.look()], [21, 61]);
}

#[test]
fn what_is_written_between_the_start_and_the_first_look_is_found() {
    let world = World::new();
    world.replace("one", "7");
    let mut late = World {
        known: Known::at_start(world.followed.first),
        ..world
    };
    assert_eq!([late.look(), late.look()], [21, 27]);
}

#[rstest]
#[case::nothing_known(None, None, false)]
#[case::changing(Some(1), None, false)]
#[case::rests(Some(2), None, true)]
#[case::rests_after_a_change(Some(2), Some(1), true)]
#[case::was_read(Some(2), Some(2), false)]
fn files_are_read_once_when_they_rest(
    #[case] seen: Option<i128>,
    #[case] read: Option<i128>,
    #[case] due: bool,
) {
    let stamps = |number: i128| [Some([number; 5])];
    let known = Known {
        seen: seen.map(stamps),
        read: read.map(stamps),
        content: Fingerprint::default(),
    };
    assert_eq!(known.is_due(&stamps(2)), due);
}
