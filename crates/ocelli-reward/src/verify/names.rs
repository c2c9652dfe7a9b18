//! What names mean: LaTeX commands, functions and constants of plain text, short words, Greek letters.

use super::expr::Function;
use super::token::{Bracket, Relation, Token};

/// Function and constant names of plain text.
pub(super) fn named(run: &str) -> Option<Token> {
    Some(match run {
        "sqrt" => Token::Sqrt,
        "pi" | "Pi" => Token::Pi,
        "inf" | "infinity" | "infty" | "oo" => Token::Infinity,
        "log" | "lg" => Token::Log,
        "sin" => Token::Function(Function::Sin),
        "cos" => Token::Function(Function::Cos),
        "tan" | "tg" => Token::Function(Function::Tan),
        "cot" => Token::Function(Function::Cot),
        "sec" => Token::Function(Function::Sec),
        "csc" => Token::Function(Function::Csc),
        "arcsin" | "asin" => Token::Function(Function::Asin),
        "arccos" | "acos" => Token::Function(Function::Acos),
        "arctan" | "atan" => Token::Function(Function::Atan),
        "sinh" => Token::Function(Function::Sinh),
        "cosh" => Token::Function(Function::Cosh),
        "tanh" => Token::Function(Function::Tanh),
        "exp" => Token::Function(Function::Exp),
        "ln" => Token::Function(Function::Ln),
        "abs" => Token::Function(Function::Abs),
        "floor" => Token::Function(Function::Floor),
        "ceil" => Token::Function(Function::Ceil),
        "binom" => Token::Binom,
        "max" | "min" | "gcd" | "lcm" | "det" | "lim" | "deg" | "dim" | "ker" | "sup" => {
            Token::Operator(run.to_owned())
        }
        "theta" | "alpha" | "beta" | "gamma" | "lambda" | "omega" | "phi" | "varphi" | "mu" | "sigma"
        | "delta" | "epsilon" | "rho" | "tau" => Token::Symbol(run.to_owned()),
        _ => return None,
    })
}

/// Tokens of LaTeX commands without arguments.
pub(super) fn command_token(name: &str) -> Option<Token> {
    Some(match name {
        "sqrt" => Token::Sqrt,
        "binom" | "dbinom" | "tbinom" => Token::Binom,
        "pi" => Token::Pi,
        "infty" => Token::Infinity,
        "pm" => Token::PlusMinus,
        "mp" => Token::MinusPlus,
        "times" | "cdot" | "ast" | "bullet" => Token::Times,
        "div" => Token::Divide,
        "over" => Token::Over,
        "circ" | "degree" => Token::Degree,
        "prime" => Token::Prime,
        "approx" | "simeq" | "cong" | "sim" | "doteq" => Token::Relation(Relation::Approx),
        "ne" | "neq" => Token::Relation(Relation::NotEqual),
        "lt" => Token::Relation(Relation::Less),
        "gt" => Token::Relation(Relation::Greater),
        "le" | "leq" | "leqslant" | "leqq" => Token::Relation(Relation::LessEqual),
        "ge" | "geq" | "geqslant" | "geqq" => Token::Relation(Relation::GreaterEqual),
        "in" => Token::Relation(Relation::In),
        "cup" | "bigcup" => Token::Cup,
        "cap" => Token::Cap,
        "setminus" | "backslash" => Token::SetMinus,
        "emptyset" | "varnothing" => Token::EmptySet,
        "mid" | "vert" => Token::Bar,
        "lvert" => Token::Open(Bracket::Abs),
        "rvert" => Token::Close(Bracket::Abs),
        "{" | "lbrace" => Token::Open(Bracket::Set),
        "}" | "rbrace" => Token::Close(Bracket::Set),
        "langle" => Token::Open(Bracket::Angle),
        "rangle" => Token::Close(Bracket::Angle),
        "lfloor" => Token::Open(Bracket::Floor),
        "rfloor" => Token::Close(Bracket::Floor),
        "lceil" => Token::Open(Bracket::Ceil),
        "rceil" => Token::Close(Bracket::Ceil),
        "lbrack" => Token::Open(Bracket::Square),
        "rbrack" => Token::Close(Bracket::Square),
        "%" => Token::Percent,
        "\\" | "newline" => Token::Row,
        "colon" => Token::Colon,
        "sum" | "int" | "prod" | "lim" | "max" | "min" | "gcd" | "lcm" | "det" | "iint" | "oint" | "sup"
        | "inf" => Token::Operator(name.to_owned()),
        "ldots" | "cdots" | "dots" | "dotsc" => Token::Symbol("…".to_owned()),
        _ => match named(name) {
            Some(token @ (Token::Function(_) | Token::Log)) => token,
            _ => return None,
        },
    })
}

/// Words of two and three letters that occur as answers or in prose; other short runs are products of variables.
pub(super) fn is_short_word(run: &str) -> bool {
    const WORDS: [&str; 44] = [
        "no", "yes", "odd", "one", "two", "six", "ten", "red", "the", "not", "all", "for", "if", "is", "it",
        "to", "of", "as", "at", "by", "he", "she", "Tom", "Amy", "Bob", "Sam", "Ben", "Max", "Joe", "Ann",
        "day", "old", "new", "big", "low", "hot", "cat", "dog", "pig", "hen", "car", "bus", "cup", "pen",
    ];
    WORDS.contains(&run)
}

/// Name of a Greek letter.
pub(super) fn greek(c: char) -> &'static str {
    match c {
        'α' => "alpha",
        'β' => "beta",
        'γ' => "gamma",
        'δ' => "delta",
        'ε' => "epsilon",
        'θ' => "theta",
        'λ' => "lambda",
        'μ' => "mu",
        'ρ' => "rho",
        'σ' => "sigma",
        'τ' => "tau",
        'φ' => "phi",
        'ϕ' => "phi",
        'ψ' => "psi",
        'ω' => "omega",
        'Δ' => "Delta",
        'Ω' => "Omega",
        'Σ' => "Sigma",
        'Φ' => "Phi",
        'η' => "eta",
        'ν' => "nu",
        'ξ' => "xi",
        'κ' => "kappa",
        _ => "greek",
    }
}

/// Power of ten of a word of scale: `million` is 6, `万` is 4.
pub(super) fn scale_word(word: &str) -> Option<u32> {
    match word {
        "百" => Some(2),
        "千" => Some(3),
        "万" => Some(4),
        "亿" => Some(8),
        _ => match word.to_ascii_lowercase().as_str() {
            "hundred" => Some(2),
            "thousand" => Some(3),
            "million" => Some(6),
            "billion" => Some(9),
            "trillion" => Some(12),
            _ => None,
        },
    }
}
