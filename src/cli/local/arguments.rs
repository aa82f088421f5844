//! The command lines of `inspect`, `run` and `bench`.

use crate::{
    cli::CliError,
    graph::{Selection, passes::Narrow},
    kernels::{Kernels, PANEL_WIDTHS, PanelWidth, best, in_brain_floats},
};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};
use std::{path::PathBuf, str::FromStr, thread};

/// Which model, on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelArguments {
    /// A model's folder or file.
    pub model: PathBuf,
    /// Arrays by input name.
    pub input: Option<PathBuf>,
    /// What stands before the names in the archive, as in `CASE/in/NAME`.
    pub case: Option<String>,
    /// The signature; where none is given `serving_default`, or the only one.
    pub signature: Option<String>,
    /// Threads of a run, at least 1.
    pub threads: usize,
    /// Value of a leading dimension that the model leaves open, where no input is given.
    pub batch: usize,
    /// Shapes of inputs that are made up.
    pub shapes: Vec<GivenShape>,
    /// The graph runs node by node as it was imported.
    pub as_imported: bool,
    /// Products are computed in brain floats.
    pub brain_floats: bool,
    /// What computes, and where.
    pub selection: Selection,
}

/// `--shape NAME=1,3,224,224`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenShape {
    /// The input.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
}

/// `kinglet run`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunArguments {
    /// Which model, on what.
    pub model: ModelArguments,
    /// Where the outputs go.
    pub output: Option<PathBuf>,
}

/// `kinglet bench`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchArguments {
    /// Which model, on what.
    pub model: ModelArguments,
    /// Runs that are timed.
    pub iterations: usize,
    /// Runs before.
    pub warm_up: usize,
    /// Recorded calls that are played to the model instead of one input.
    pub replay: Option<PathBuf>,
    /// Times per operator.
    pub profile: bool,
    /// One line of JSON instead of text.
    pub json: bool,
    /// Runs as often as each line of standard input says, and answers with a line of JSON.
    pub interactive: bool,
    /// Where the outputs of the first run go.
    pub output: Option<PathBuf>,
}

/// `kinglet inspect`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectArguments {
    /// A model's folder or file.
    pub model: PathBuf,
    /// Value of a leading dimension that the model leaves open, for the memory of a run.
    pub batch: usize,
    /// Shapes of inputs for the memory of a run.
    pub shapes: Vec<GivenShape>,
}

/// `kinglet convert`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertArguments {
    /// Which model, and on what it is compared.
    pub model: ModelArguments,
    /// A version folder, or the folder that it goes into.
    pub destination: PathBuf,
    /// What weights are stored as; `None` keeps every bit.
    pub weights: Option<Narrow>,
    /// The panels that weights of products are stored as.
    pub panels: Option<PanelWidth>,
    /// Nothing is written.
    pub dry_run: bool,
    /// Signs the folder.
    pub sign_key: Option<PathBuf>,
}

/// `kinglet bundle`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleArguments {
    /// The models; with `list` the bundle, where it is not the running one.
    pub models: Vec<GivenModel>,
    /// Where the bundle goes.
    pub output: Option<PathBuf>,
    /// What weights are stored as; `None` keeps every bit.
    pub weights: Option<Narrow>,
    /// The panels that weights of products are stored as.
    pub panels: Option<PanelWidth>,
    /// Threads for the conversion, at least 1.
    pub threads: usize,
    /// Signs the bundle.
    pub sign_key: Option<PathBuf>,
    /// Tells what is in a bundle instead of making one.
    pub list: bool,
    /// The bundle that is listed must be signed with this key.
    pub verify_key: Option<PathBuf>,
}

/// `NAME=PATH` or `PATH`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenModel {
    /// The name, where one is given.
    pub name: Option<String>,
    /// A model's folder or file.
    pub path: PathBuf,
}

impl FromStr for GivenModel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.split_once('=') {
            Some((name, path)) if !name.contains('/') => {
                Self { name: Some(name.to_owned()), path: path.into() }
            }
            _ => Self { name: None, path: text.into() },
        })
    }
}

impl FromStr for GivenShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "a shape is given as NAME=1,3,224,224";
        let (name, dims) = text.rsplit_once('=').ok_or(form)?;
        let dims = dims.split(',').filter(|dim| !dim.is_empty()).map(|dim| dim.trim().parse());
        let dims: Result<Vec<usize>, _> = dims.collect();
        Ok(Self { name: name.to_owned(), dims: dims.map_err(|_| form)? })
    }
}

pub(in crate::cli) fn inspect_command() -> Command {
    base_command("inspect", "Describes a model, and says how much memory it takes.")
        .arg(batch("A first dimension that the model leaves open, for the memory of a run."))
        .arg(shape("Shape of an input, for the memory of a run."))
}

pub(in crate::cli) fn run_command() -> Command {
    model_command("run", "Runs a model once and tells what comes out.").arg(path(
        "output",
        "FILE.npz",
        "Write the outputs to this archive of NumPy arrays.",
    ))
}

pub(in crate::cli) fn bench_command() -> Command {
    model_command("bench", "Times a model.")
        .arg(count("iterations", "100", "Runs that are timed."))
        .arg(count("warm_up", "5", "Runs before them; the first is part of the load time."))
        .arg(path(
            "replay",
            "FILE",
            "Play the calls that --record_requests wrote, each --iterations times, and compare the answers.",
        ))
        .arg(switch("profile", "Show where the time goes, operator by operator."))
        .arg(switch("json", "Answer with one line of JSON."))
        .arg(switch(
            "interactive",
            "Read a number of runs from each line of standard input; answer each with a line of JSON.",
        ))
        .arg(path("output", "FILE.npz", "Write the outputs of the first run to this archive."))
}

impl InspectArguments {
    pub(in crate::cli) fn parse(words: &[String]) -> Result<Self, CliError> {
        let matches = matches(inspect_command(), words)?;
        Ok(Self { model: model_of(&matches), batch: batch_of(&matches), shapes: shapes_of(&matches) })
    }
}

impl RunArguments {
    pub(in crate::cli) fn parse(words: &[String]) -> Result<Self, CliError> {
        let matches = matches(run_command(), words)?;
        Ok(Self { model: ModelArguments::of(&matches), output: matches.get_one("output").cloned() })
    }
}

impl BenchArguments {
    pub(in crate::cli) fn parse(words: &[String]) -> Result<Self, CliError> {
        let matches = matches(bench_command(), words)?;
        let number = |name: &str| matches.get_one(name).copied().unwrap_or(1);
        Ok(Self {
            model: ModelArguments::of(&matches),
            iterations: number("iterations").max(1),
            warm_up: number("warm_up"),
            replay: matches.get_one("replay").cloned(),
            profile: matches.get_flag("profile"),
            json: matches.get_flag("json"),
            interactive: matches.get_flag("interactive"),
            output: matches.get_one("output").cloned(),
        })
    }
}

impl ConvertArguments {
    pub(in crate::cli) fn parse(words: &[String]) -> Result<Self, CliError> {
        let matches = matches(convert_command(), words)?;
        Ok(Self {
            model: ModelArguments::of(&matches),
            destination: matches.get_one::<PathBuf>("DST").cloned().unwrap_or_default(),
            weights: narrow(&matches),
            panels: panels_of(&matches),
            dry_run: matches.get_flag("dry_run"),
            sign_key: matches.get_one("sign_key").cloned(),
        })
    }
}

impl BundleArguments {
    pub(in crate::cli) fn parse(words: &[String]) -> Result<Self, CliError> {
        let matches = matches(bundle_command(), words)?;
        let models = matches.get_many::<GivenModel>("MODEL");
        let models: Vec<GivenModel> = models.map(|models| models.cloned().collect()).unwrap_or_default();
        let list = matches.get_flag("list");
        if models.is_empty() && !list {
            let usage = "bundle needs models: kinglet bundle [NAME=]PATH... --output FILE";
            return Err(CliError::Usage(usage.to_owned()));
        }
        Ok(Self {
            models,
            output: matches.get_one("output").cloned(),
            weights: narrow(&matches),
            panels: panels_of(&matches),
            threads: threads(&matches),
            sign_key: matches.get_one("sign_key").cloned(),
            list,
            verify_key: matches.get_one("verify_key").cloned(),
        })
    }
}

pub(in crate::cli) fn convert_command() -> Command {
    model_command("convert", "Converts any model to a folder of kinglet's own format.")
        .arg(
            Arg::new("DST")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The new version folder; version 1 below it where its name is no number."),
        )
        .arg(weights())
        .arg(panels())
        .arg(switch("dry_run", "Write nothing; tell size, memory and what becomes of the outputs."))
        .arg(path("sign_key", "FILE", "Sign the folder with this private key (kinglet key new)."))
}

pub(in crate::cli) fn bundle_command() -> Command {
    Command::new("bundle")
        .bin_name("kinglet bundle")
        .about("Writes a copy of this binary with models in it: one file that is server and model.")
        .disable_version_flag(true)
        .arg(
            Arg::new("MODEL")
                .action(ArgAction::Append)
                .num_args(0..)
                .value_parser(GivenModel::from_str)
                .help("A model's folder or file, or NAME=PATH; any format."),
        )
        .arg(path("output", "FILE", "The file to write.").short('o'))
        .arg(weights())
        .arg(panels())
        .arg(count("threads", "0", "Threads for the conversion; 0 takes every core."))
        .arg(path("sign_key", "FILE", "Sign the bundle with this private key (kinglet key new)."))
        .arg(switch("list", "Tell what is in a bundle: in MODEL, or in this binary."))
        .arg(path("verify_key", "FILE", "With --list: the bundle must be signed with this public key."))
}

fn weights() -> Arg {
    Arg::new("weights")
        .long("weights")
        .value_name("f32|f16|bf16|int8")
        .default_value("f32")
        .value_parser(["f32", "f16", "bf16", "int8"])
        .help("What weights are stored as; f32 keeps every bit, int8 has one scale per output channel.")
}

fn panels() -> Arg {
    let names = PANEL_WIDTHS.iter().map(|&(name, _)| name);
    Arg::new("panels")
        .long("panels")
        .value_name("best|none|KERNELS")
        .default_value("best")
        .value_parser(PossibleValuesParser::new(["best", "none"].into_iter().chain(names)))
        .help(
            "Store weights as the kernels of the serving CPU read them (best: those of this one), so that they are used \
             where they are mapped; other CPUs pack them at load.",
        )
}

fn panels_of(matches: &ArgMatches) -> Option<PanelWidth> {
    match matches.get_one::<String>("panels").map(String::as_str) {
        Some("best") => Some(PanelWidth::of(best())),
        word => PANEL_WIDTHS.iter().find(|(name, _)| Some(*name) == word).map(|&(_, width)| width),
    }
}

fn narrow(matches: &ArgMatches) -> Option<Narrow> {
    match matches.get_one::<String>("weights").map(String::as_str) {
        Some("f16") => Some(Narrow::F16),
        Some("bf16") => Some(Narrow::Bf16),
        Some("int8") => Some(Narrow::I8),
        _ => None,
    }
}

fn threads(matches: &ArgMatches) -> usize {
    let given = matches.get_one("threads").copied().filter(|&threads| threads > 0);
    given.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
}

impl ModelArguments {
    /// The kernels that were asked for.
    pub(super) fn kernels(&self) -> &'static Kernels {
        if self.brain_floats { in_brain_floats() } else { best() }
    }

    fn of(matches: &ArgMatches) -> Self {
        let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
        Self {
            model: model_of(matches),
            input: matches.get_one("input").cloned(),
            case: matches.get_one("case").cloned(),
            signature: matches.get_one("signature").cloned(),
            threads: threads(matches),
            batch: batch_of(matches),
            as_imported: matches.get_flag("as_imported"),
            brain_floats: matches.get_one::<String>("precision").is_some_and(|word| word == "bf16"),
            selection: Selection { backend: text("backend"), device: text("device") },
            shapes: shapes_of(matches),
        }
    }
}

fn model_of(matches: &ArgMatches) -> PathBuf {
    matches.get_one::<PathBuf>("MODEL").cloned().unwrap_or_default()
}

fn batch_of(matches: &ArgMatches) -> usize {
    matches.get_one("batch").copied().unwrap_or(1)
}

fn shapes_of(matches: &ArgMatches) -> Vec<GivenShape> {
    let shapes = matches.get_many::<GivenShape>("shape");
    shapes.map(|shapes| shapes.cloned().collect()).unwrap_or_default()
}

fn base_command(name: &'static str, about: &'static str) -> Command {
    Command::new(name).bin_name(format!("kinglet {name}")).about(about).disable_version_flag(true).arg(
        Arg::new("MODEL")
            .required(true)
            .value_parser(value_parser!(PathBuf))
            .help("A model's folder or file."),
    )
}

fn model_command(name: &'static str, about: &'static str) -> Command {
    base_command(name, about)
        .arg(path(
            "input",
            "FILE.npz",
            "Arrays by input name, or in/NAME; those that are missing are made up. Arrays out/NAME are compared.",
        ))
        .arg(
            Arg::new("case")
                .long("case")
                .value_name("TEXT")
                .help("Take the arrays CASE/in/NAME and CASE/out/NAME of the archive."),
        )
        .arg(Arg::new("signature").long("signature").value_name("NAME").help("The signature to run."))
        .arg(count("threads", "0", "Threads; 0 takes every core."))
        .arg(
            Arg::new("precision")
                .long("precision")
                .value_name("f32|bf16")
                .default_value("f32")
                .value_parser(["f32", "bf16"])
                .help("What products with known weights are computed in."),
        )
        .arg(switch("as_imported", "Run node by node, without simplifying the graph first."))
        .arg(word("backend", "kernels", "What computes: kernels, or candle in a binary that was built with it."))
        .arg(word("device", "cpu", "Where it computes: cpu, cuda:N or auto."))
        .arg(batch("A first dimension that the model leaves open, in inputs that are made up."))
        .arg(shape("Shape of an input that is made up."))
}

fn batch(help: &'static str) -> Arg {
    count("batch", "1", help)
}

fn shape(help: &'static str) -> Arg {
    Arg::new("shape")
        .long("shape")
        .value_name("NAME=1,3,224,224")
        .action(ArgAction::Append)
        .value_parser(GivenShape::from_str)
        .help(help)
}

fn path(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).value_parser(value_parser!(PathBuf)).help(help)
}

fn count(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    let parser =
        |text: &str| text.parse::<usize>().map_err(|_| "a whole number, 0 or more, is needed".to_owned());
    Arg::new(name).long(name).value_name("N").default_value(default).value_parser(parser).help(help)
}

fn word(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("NAME").default_value(default).help(help)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// Underscores and dashes are the same in flags, as for `serve`.
fn matches(command: Command, words: &[String]) -> Result<ArgMatches, CliError> {
    let name = command.get_name().to_owned();
    let words = words.iter().map(|word| match word.strip_prefix("--") {
        Some(flag) => match flag.split_once('=') {
            Some((flag, value)) => format!("--{}={value}", flag.replace('-', "_")),
            None => format!("--{}", flag.replace('-', "_")),
        },
        None => word.clone(),
    });
    command.try_get_matches_from(std::iter::once(name).chain(words)).map_err(|error| match error.kind() {
        clap::error::ErrorKind::DisplayHelp => CliError::Help(error.to_string()),
        _ => CliError::Usage(error.to_string().trim_end().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn benches_are_read() {
        let line =
            "m.onnx --input x.npz --threads=2 --warm-up 3 --iterations 7 --shape a/b:0=1,2 --shape c= --json";
        let bench = BenchArguments::parse(&words(line)).unwrap();
        assert_eq!((bench.iterations, bench.warm_up, bench.json, bench.profile), (7, 3, true, false));
        let ModelArguments { model, input, threads, shapes, .. } = bench.model;
        assert_eq!((model, input, threads), ("m.onnx".into(), Some("x.npz".into()), 2));
        let shape = |name: &str, dims: &[usize]| GivenShape { name: name.into(), dims: dims.into() };
        assert_eq!(shapes, [shape("a/b:0", &[1, 2]), shape("c", &[])]);
    }

    #[test]
    fn conversions_and_bundles_are_read() {
        let convert =
            ConvertArguments::parse(&words("m.onnx out --weights int8 --dry-run --input x.npz")).unwrap();
        assert_eq!((convert.weights, convert.dry_run), (Some(Narrow::I8), true));
        assert_eq!((convert.model.model, convert.destination), ("m.onnx".into(), "out".into()));
        assert!(ConvertArguments::parse(&words("m.onnx out --weights f64")).is_err());
        assert!(ConvertArguments::parse(&words("m.onnx")).is_err());
        let bundle = BundleArguments::parse(&words("a=x/1 y -o detector --weights=f16")).unwrap();
        assert_eq!(bundle.output, Some("detector".into()));
        let model =
            |name: Option<&str>, path: &str| GivenModel { name: name.map(str::to_owned), path: path.into() };
        assert_eq!(bundle.models, [model(Some("a"), "x/1"), model(None, "y")]);
        assert!(
            BundleArguments::parse(&words("-o x")).is_err()
                && BundleArguments::parse(&words("--list")).is_ok()
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |line: &str| RunArguments::parse(&words(line)).unwrap_err().to_string();
        assert!(error("").contains("MODEL"));
        assert!(error("m --threads x").contains("a whole number"));
        assert!(error("m --shape x").contains("NAME=1,3,224,224"));
        assert!(
            matches!(RunArguments::parse(&words("--help")), Err(CliError::Help(text)) if text.contains("--output"))
        );
    }
}
