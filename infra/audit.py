"""`python -m infra.audit`: runs pip-audit on the installed packages; prints a note when the service is unreachable."""

import json
import subprocess
import sys


def main() -> int:
    """Run pip-audit; returns 1 when a package has a known vulnerability, 0 also when the check was not possible."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines() or ["no answer"]
        print(f"pip-audit: skipped, the advisory service cannot be reached ({lines[-1][:200]})")
        return 0
    asked = [package for package in packages if "vulns" in package]
    if not asked:
        print("pip-audit: skipped, the advisory service knows none of the packages")
        return 0
    known = [(package, flaw) for package in asked for flaw in package["vulns"]]
    for package, flaw in known:
        fixed = ", ".join(flaw["fix_versions"]) or "no version"
        print(f"pip-audit: {package['name']} {package['version']} has {flaw['id']}; fixed in {fixed}")
    print(f"pip-audit: {len(asked)} of {len(packages)} packages asked about, {len(known)} known vulnerabilities")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
