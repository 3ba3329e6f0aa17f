//! The attribute `#[test]` for crates that `testkit::main` runs.

use proc_macro::{TokenStream, TokenTree};

/// Registers the function for `testkit::main`, as the built-in attribute does for libtest. With
/// `#[test(alone)]` no other test of the crate runs meanwhile.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, function: TokenStream) -> TokenStream {
    let alone = match arguments.to_string().as_str() {
        "" => false,
        "alone" => true,
        other => panic!("#[test({other})]: only \"alone\" is known"),
    };
    let mut words = function.clone().into_iter();
    words
        .find(|word| matches!(word, TokenTree::Ident(word) if word.to_string() == "fn"))
        .expect("#[test] marks a function");
    let name = words.next().expect("a function has a name");
    let registered: TokenStream = format!("::testkit::register!({name}, {alone});")
        .parse()
        .expect("this is Rust");
    function.into_iter().chain(registered).collect()
}
