//! What must not compile, and what it says.

#[test]
fn what_cannot_travel_does_not_compile_and_says_what_to_do() {
    let cases = trybuild::TestCases::new();
    // One that compiles makes trybuild build, not only check: the assertion that a closure
    // captures nothing is evaluated when it is monomorphised.
    cases.pass("tests/ui/pass_functions.rs");
    cases.compile_fail("tests/ui/fail_*.rs");
}
