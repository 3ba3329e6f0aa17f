use super::*;
use crate::config::Source;

/// The parameters to which the expressions below refer.
const PARAMETERS: &str = "compatibility_level = 3.6
set = value
empty =
indirect = $empty
nested = <$set>
five = 5
ten = 10
quoted = a$$b
";

/// The expansion of `x` in a `main.cf`, and the warnings.
fn expand_x(main_cf: &str) -> (Result<String, String>, Vec<String>) {
    let source = Source {
        path: "main.cf".into(),
        text: main_cf.into(),
    };
    let mut findings = Diagnostics::default();
    let mut dictionary = Dictionary::new(&source.path);
    dictionary.load(&source, &mut findings);
    let value = dictionary.get(b"x").expect("a test sets x");
    let result = expand(value, &dictionary, &mut findings)
        .map(|output| String::from_utf8_lossy(&output).into_owned())
        .map_err(|error| error.to_string());
    (result, findings.0.iter().map(ToString::to_string).collect())
}

fn expansion(expression: &str) -> String {
    let main_cf = format!("{PARAMETERS}x = [{expression}]\n");
    let output = expand_x(&main_cf).0.expect("an expression without errors");
    output[1..output.len() - 1].to_owned()
}

/// The error of an expression, and its offset in the expression.
fn error(expression: &str) -> (usize, String) {
    let main_cf = format!("x={expression}\n{PARAMETERS}");
    let text = expand_x(&main_cf)
        .0
        .expect_err("an expression with an error");
    let rest = text.strip_prefix("main.cf: line 1: column ");
    let (column, message) = rest.and_then(|r| r.split_once(": ")).expect("a place");
    let column: usize = column.parse().expect("a column");
    (column - "x=".len() - 1, message.to_owned())
}

/// Each pair was checked with `postconf -x` of Postfix 3.7.11.
#[test]
fn expressions_expand_as_in_postfix() {
    let expressions = [
        ("$set", "value"),
        ("${set}", "value"),
        ("$(set)", "value"),
        ("$$set", "$set"),
        ("$set.x", "value.x"),
        ("${set}x", "valuex"),
        ("$setx", ""),
        ("x$(set)y$set", "xvalueyvalue"),
        ("${ set }", "value"),
        ("${set?yes}", "yes"),
        ("${empty?yes}", ""),
        ("${nothing?yes}", ""),
        ("${set:no}", ""),
        ("${empty:no}", "no"),
        ("${nothing:no}", "no"),
        ("${indirect?raw}", "raw"),
        ("${set?{yes}:{no}}", "yes"),
        ("${empty?{yes}:{no}}", "no"),
        ("${set ? {yes} : {no}}", "yes"),
        ("${set?{ yes }:{no}}", " yes "),
        ("${set?a{b}c}", "a{b}c"),
        ("${set?yes:no}", "yes:no"),
        ("${empty?yes:no}", ""),
        ("${set? yes}", " yes"),
        ("${nothing: no}", " no"),
        ("${empty?{yes}:no}", "no"),
        ("${set?<$nested>}", "<<value>>"),
        ("${nested}", "<value>"),
        ("$quoted", "a$b"),
        ("${set?$$}", "$"),
        ("${{a} == {a}}", "true"),
        ("${{a} == {b}}", ""),
        ("${{$set} == {value} ? {same} : {other}}", "same"),
        ("${{$set} != {value} ? {same} : {other}}", "other"),
        ("${{9} < {10} ? {number} : {string}}", "number"),
        ("${{9x} < {10x} ? {number} : {string}}", "string"),
        ("${{$ten} >= {$five}?{y}:{n}}", "y"),
        ("${{$five} >= {$ten}?{y}:{n}}", "n"),
        ("${{05} == {5}?{y}:{n}}", "y"),
        ("${{a } == {a}?{y}:{n}}", "n"),
        ("${{} < {a}?{y}:{n}}", "y"),
        ("${{b} <= {a}:{no}}", "no"),
        ("${{3.10} >level {3.9} ? {y} : {n}}", "y"),
        (
            "${{$compatibility_level} <level {3.6} ? {old} : {new}}",
            "new",
        ),
        (
            "${{$compatibility_level} >=level {3.6.0} ? {new} : {old}}",
            "new",
        ),
        ("${{3} ==level {3.0}?{y}:{n}}", "y"),
        ("${{$set} == {${nested?{value}}} ? {${five}} : {}}", "5"),
        ("$({x} == {x}?{(y)}:{n})", "(y)"),
        ("${set?{${empty?{a}:{${ten}}}}:{c}}", "10"),
        ("${?x}", ""),
        ("${:x}", "x"),
        ("${ }", ""),
        ("100%$five$ten", "100%510"),
        ("${set:?a}", ""),
        ("${empty??a}", ""),
    ];
    for (expression, expected) in expressions {
        assert_eq!(expansion(expression), expected, "{expression}");
    }
}

/// `postconf -x` of Postfix 3.7.11 reports an error for each of these.
#[test]
fn an_error_has_the_place_of_what_is_wrong() {
    for (expression, offset, message) in [
        ("$set$", 4, "empty macro name"),
        ("a$.", 1, "empty macro name"),
        ("${}", 0, "empty macro name"),
        ("-${set", 1, "truncated macro reference"),
        ("$(set", 0, "truncated macro reference"),
        ("${set?{a}", 0, "truncated macro reference"),
        ("$({a)", 2, "unbalanced {}"),
        ("${set!}", 5, "attribute name syntax error"),
        ("${a b}", 3, "attribute name syntax error"),
        ("${set?{a}b}", 9, "expected \":\" or the end"),
        ("${set?{a}:{b}c}", 13, "unexpected text after \"}\""),
        ("${set:{a}?{b}}", 9, "unexpected text after \"}\""),
        ("${{a} = {b}}", 6, "expected \"==\""),
        ("${{a}==b}", 7, "bad operator suffix: \"b\""),
        ("${{a} ==foo {b}}", 8, "bad operator suffix: \"foo\""),
        ("${{a} == }", 8, "expected \"{expression}\""),
        (
            "${{a} ==level {3}}",
            3,
            "malformed compatibility level syntax: \"a\"",
        ),
        ("${{a} == {b}x}", 12, "expected \"?\" or \":\""),
        ("${{1} == {99999999999999999999}}", 10, "bad conversion"),
    ] {
        let (at, text) = error(expression);
        assert!(text.starts_with(message), "{expression}: {text}");
        assert_eq!(at, offset, "{expression}");
    }
}

#[test]
fn an_error_inside_another_parameter_has_its_place_there() {
    let (result, _) = expand_x("x = $y\ny =\n  a\n  ${z!}\n");
    let error = result.expect_err("an error in y");
    assert!(error.starts_with("main.cf: line 4: column 6: "), "{error}");
}

#[test]
fn a_parameter_that_refers_to_itself_is_an_error() {
    for main_cf in [
        "x = $x\n",
        "x = $y\ny = ${x}\n",
        "x = ${x?{$x}}\n",
        "x = ${{$x} == {1}?{a}:{b}}\n",
    ] {
        let error = expand_x(main_cf).0.expect_err("a loop");
        assert!(error.contains("unreasonable macro call nesting"), "{error}");
    }
}

/// 100 levels of reference, as in Postfix; level 101 is an error.
#[test]
fn references_may_nest_a_hundred_times() {
    let chain = |levels: usize| {
        let links = (0..levels).map(|n| format!("p{n} = $p{}\n", n + 1));
        format!("x = $p0\n{}p{levels} = end\n", links.collect::<String>())
    };
    assert_eq!(expand_x(&chain(99)).0.as_deref(), Ok("end"));
    assert!(expand_x(&chain(100)).0.is_err());
}

#[test]
fn doubling_references_come_to_an_end() {
    for last in ["end", ""] {
        let links = (0..90).map(|n| format!("p{n} = $p{m}$p{m}\n", m = n + 1));
        let main_cf = format!("x = $p0\n{}p90 = {last}\n", links.collect::<String>());
        let error = expand_x(&main_cf).0.expect_err("too much");
        assert!(error.contains("unreasonably large"), "{error}");
    }
}

#[test]
fn an_undefined_parameter_is_empty_with_a_warning() {
    let (result, warnings) = expand_x("x = a${ foo }b\n");
    assert_eq!(result.as_deref(), Ok("ab"));
    assert_eq!(
        warnings,
        ["main.cf: line 1: column 9: undefined parameter: foo: it expands to nothing"]
    );
}

#[test]
fn a_test_of_an_undefined_parameter_needs_no_warning() {
    assert_eq!(
        expand_x("x = ${foo?a}${foo:b}\n"),
        (Ok("b".to_owned()), vec![])
    );
}

#[test]
fn the_release_is_not_known() {
    let (_, warnings) = expand_x("x = $mail_version\n");
    assert_eq!(
        warnings,
        [
            "main.cf: line 1: column 6: undefined parameter: mail_version: \
             it depends on the Postfix release, write the version out"
        ]
    );
}

#[test]
fn bytes_that_are_no_utf_8_pass() {
    let mut findings = Diagnostics::default();
    let dictionary = Dictionary::new("main.cf".as_ref());
    let value = Text::unwritten(
        std::rc::Rc::from(std::path::Path::new("f")),
        b"\xff$$".to_vec(),
    );
    let output = expand(&value, &dictionary, &mut findings);
    assert_eq!(output, Ok(b"\xff$".to_vec()));
}
