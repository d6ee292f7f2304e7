//! What must not compile, and what it says.

mod common;

use common::package::Package;
use std::fs;
use std::path::Path;

#[test]
fn the_attribute_says_what_it_cannot_register() {
    trybuild::TestCases::new().compile_fail("tests/ui/attribute/*.rs");
}

#[test]
fn the_attribute_says_what_it_cannot_manage() {
    trybuild::TestCases::new().compile_fail("tests/ui/managed/*.rs");
}

/// Builds each file in `tests/ui/build`. It must fail with every text that a line `// error: …` at
/// its top has, or build if there is no such line.
///
/// A snapshot of the whole message would quote this crate's own source; and the assertion that a
/// closure captures nothing is evaluated only in a full build.
#[test]
fn what_cannot_travel_does_not_build_and_the_message_says_what_to_do() {
    let package = Package::new("ui", "[profile.dev]\ndebug = false\n");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui/build");
    let mut wrong = Vec::new();
    let mut cases = 0;
    for source in fs::read_dir(sources).expect("the cases") {
        let path = source.expect("a case").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let text = fs::read_to_string(&path).expect("a source");
        package.write(&format!("src/bin/{name}.rs"), &text);
        let built = package.cargo("build").args(["--bin", name]).output().expect("cargo");
        let said = String::from_utf8_lossy(&built.stderr);
        let expected: Vec<_> =
            text.lines().map_while(|line| line.strip_prefix("// error: ")).collect();
        if built.status.success() != expected.is_empty() {
            wrong.push(format!("{name}: {}\n{said}", built.status));
        }
        let missing = expected.iter().filter(|expected| !said.contains(**expected));
        wrong.extend(missing.map(|text| format!("{name}: does not say `{text}`\n{said}")));
        cases += 1;
    }
    assert!(cases >= 35, "{cases}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
