// Serverless plugin: makes build/function.zip before it is packaged.
"use strict";

const { execFileSync } = require("node:child_process");
const { existsSync } = require("node:fs");

const VENV = ".venv/bin/python";

module.exports = class Bundle {
  constructor(serverless, options, { log }) {
    const bundle = () => {
      log.notice("Bundling the function with function/requirements.txt");
      const python = existsSync(VENV) ? VENV : "python3";
      execFileSync(python, ["-m", "infra.aws.bundle"], { cwd: serverless.serviceDir, stdio: "inherit" });
    };
    this.hooks = { "before:package:createDeploymentArtifacts": bundle };
  }
};
