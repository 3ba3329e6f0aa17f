//! The attribute `#[test]` for crates that `testkit::main` runs.

use proc_macro::{TokenStream, TokenTree};

/// Registers the function for `testkit::main`, as the built-in attribute does for libtest.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, function: TokenStream) -> TokenStream {
    assert!(arguments.is_empty(), "#[test] takes no arguments");
    let mut words = function.clone().into_iter();
    words
        .find(|word| matches!(word, TokenTree::Ident(word) if word.to_string() == "fn"))
        .expect("#[test] marks a function");
    let name = words.next().expect("a function has a name");
    let registered: TokenStream = format!("::testkit::register!({name});")
        .parse()
        .expect("this is Rust");
    function.into_iter().chain(registered).collect()
}
