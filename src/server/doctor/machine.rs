//! CPU, clocks, memory, limits and permissions.

use super::{Finding, megabytes};
use crate::{
    cli::Options,
    graph::SystemMemory,
    kernels::{available, best},
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Open files below which many clients are refused.
const ENOUGH_FILES: u64 = 4096;
/// Above it most boards slow down.
const HOT: f64 = 80.0;
/// No clock of a running machine stands before 2024: certificates and tokens would be refused.
const PLAUSIBLE: Duration = Duration::from_secs(1_704_067_200);

pub(super) fn findings(options: &Options) -> Vec<Finding> {
    let mut findings = vec![cpu(), threads(options)];
    findings.extend(clocks(Path::new("/sys")));
    findings.extend(memory(&SystemMemory::now(), options.memory_limit));
    findings.push(open_files(&read("/proc/self/limits")));
    findings.push(time());
    findings.extend(permissions(options));
    findings
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn cpu() -> Finding {
    let table = read("/proc/cpuinfo");
    let row = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = row("model name").or_else(|| row("Model")).or_else(|| row("CPU part"));
    let names: Vec<&str> = available().iter().map(|kernels| kernels.name).collect();
    let (used, fastest) = (best().name, names.first().copied().unwrap_or_default());
    let found = format!(
        "{}; instruction set {used} of {}",
        model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        names.join(", ")
    );
    if used != fastest {
        return Finding::advice(
            "cpu",
            found,
            format!("KINGLET_ISA forces {used}; without it {fastest} is used"),
        );
    }
    match used {
        "portable" => Finding::advice(
            "cpu",
            found,
            "no vector instructions are used; a virtual machine may hide them (cpu: host-passthrough)",
        ),
        _ => Finding::good("cpu", found),
    }
}

fn threads(options: &Options) -> Finding {
    let usable = thread::available_parallelism().map_or(1, usize::from);
    let found = format!(
        "{usable} CPUs by affinity and quota; {} threads a request, {} requests at once",
        options.threads, options.workers
    );
    match options.threads > usable {
        true => {
            Finding::advice("threads", found, format!("--threads={usable}: more only wait for each other"))
        }
        false => Finding::good("threads", found),
    }
}

/// The governor of the clocks, and temperatures, below `sys`.
fn clocks(sys: &Path) -> Vec<Finding> {
    let cpu = sys.join("devices/system/cpu/cpu0/cpufreq");
    let (governor, driver) = (read(cpu.join("scaling_governor")), read(cpu.join("scaling_driver")));
    let mut findings = Vec::new();
    match (governor.trim(), driver.trim()) {
        ("", _) => {
            findings.push(Finding::good("clocks", "the system does not tell the governor of the clocks"))
        }
        (governor @ ("powersave" | "conservative" | "ondemand"), driver)
            if !(governor == "powersave" && driver == "intel_pstate") =>
        {
            findings.push(Finding::advice(
                "clocks",
                format!("the governor {governor} raises the clocks late"),
                "write performance to /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor for steady latency",
            ));
        }
        (governor, _) => findings.push(Finding::good("clocks", format!("governor {governor}"))),
    }
    let zones = fs::read_dir(sys.join("class/thermal")).into_iter().flatten().flatten();
    let hottest = zones
        .filter_map(|zone| read(zone.path().join("temp")).trim().parse::<f64>().ok())
        .map(|millidegrees| millidegrees / 1e3)
        .filter(|degrees| (0.0..200.0).contains(degrees))
        .fold(f64::NEG_INFINITY, f64::max);
    if hottest >= HOT {
        let found = format!("{hottest:.0} degrees");
        findings.push(Finding::advice("clocks", found, "cool it: hot CPUs lower their clocks"));
    }
    findings
}

fn memory(system: &SystemMemory, limit: usize) -> Vec<Finding> {
    let shown = |bytes: Option<usize>| bytes.map_or_else(|| "unknown".to_owned(), megabytes);
    let mut found = format!("{} in the machine, {} free", shown(system.machine), shown(system.free));
    if let Some(group) = system.group {
        found.push_str(&format!(", control group limited to {}", megabytes(group)));
    }
    found.push_str(&format!("; --memory_limit {}", megabytes(limit)));
    if limit > system.usable() {
        return vec![Finding::advice(
            "memory",
            found,
            "--memory_limit is above what there is: Linux may end the server instead of a request",
        )];
    }
    if system.free.is_some_and(|free| free < limit / 4) {
        return vec![Finding::advice(
            "memory",
            found,
            "other processes leave little: end them, or lower --memory_limit",
        )];
    }
    vec![Finding::good("memory", found)]
}

/// From `/proc/self/limits`.
fn open_files(table: &str) -> Finding {
    let row = table.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let mut numbers = row.split_ascii_whitespace();
    let (soft, hard) = (numbers.next().unwrap_or("unknown"), numbers.next().unwrap_or("unknown"));
    let found = format!("{soft} open files (at most {hard})");
    match soft.parse::<u64>() {
        Ok(number) if number < ENOUGH_FILES => Finding::advice(
            "limits",
            found,
            "LimitNOFILE=65536 in the unit, or ulimit -n: each connection is one",
        ),
        _ => Finding::good("limits", found),
    }
}

fn time() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match now < PLAUSIBLE {
        true => Finding::wrong(
            "time",
            "the system's clock stands before 2024",
            "set it, or run a time service: certificates and tokens have dates",
        ),
        false => Finding::good("time", "the system's clock is plausible"),
    }
}

fn permissions(options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        findings.push(Finding::advice(
            "permissions",
            "runs as root",
            "run it as another user: `kinglet generate systemd` has a unit that does",
        ));
    }
    let files = [&options.auth_tokens_file, &options.ssl_config_file, &options.tls_client_ca];
    let identity = options.tls_identity.iter().flat_map(|(certificate, key)| [certificate, key]);
    for path in files.into_iter().flatten().chain(identity) {
        findings.push(match fs::File::open(path) {
            Ok(_) => Finding::good("permissions", format!("{} can be read", path.display())),
            Err(error) => Finding::wrong(
                "permissions",
                format!("{}: {error}", path.display()),
                "let the user of the server read it (LoadCredential= in a unit)",
            ),
        });
    }
    let secrets = options.auth_tokens_file.iter().chain(options.tls_identity.iter().map(|(_, key)| key));
    for path in secrets {
        let mode = fs::metadata(path).map_or(0, |file| file.permissions().mode());
        if mode & 0o077 != 0 {
            let found = format!("{} can be read by others (mode {:o})", path.display(), mode & 0o777);
            findings.push(Finding::advice("permissions", found, "chmod 600"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::doctor::Grade;

    #[test]
    fn governors() {
        let sys = tempfile::tempdir().unwrap();
        let cpu = sys.path().join("devices/system/cpu/cpu0/cpufreq");
        fs::create_dir_all(&cpu).unwrap();
        for (governor, driver, grade) in [
            ("performance\n", "cppc\n", Grade::Good),
            ("powersave\n", "intel_pstate\n", Grade::Good),
            ("powersave\n", "bcm2835\n", Grade::Advice),
            ("ondemand\n", "cpufreq-dt\n", Grade::Advice),
        ] {
            fs::write(cpu.join("scaling_governor"), governor).unwrap();
            fs::write(cpu.join("scaling_driver"), driver).unwrap();
            assert_eq!(clocks(sys.path())[0].grade, grade, "{governor}");
        }
        fs::create_dir_all(sys.path().join("class/thermal/thermal_zone0")).unwrap();
        fs::write(sys.path().join("class/thermal/thermal_zone0/temp"), "85000\n").unwrap();
        assert_eq!(clocks(sys.path()).len(), 2);
    }

    #[test]
    fn limits() {
        assert_eq!(open_files("Max open files  1024  524288  files").grade, Grade::Advice);
        assert_eq!(open_files("Max open files  unlimited unlimited files").grade, Grade::Good);
        assert_eq!(open_files("").grade, Grade::Good);
        let system = SystemMemory { machine: Some(1000), free: Some(900), group: Some(500) };
        assert_eq!(memory(&system, 400)[0].grade, Grade::Good);
        assert_eq!(memory(&system, 800)[0].grade, Grade::Advice);
        assert_eq!(memory(&SystemMemory { free: Some(50), ..system }, 400)[0].grade, Grade::Advice);
    }
}
