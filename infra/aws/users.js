// What each user may do in Redis: infra/redis/users.acl in the words of ElastiCache, which keeps passwords elsewhere.
"use strict";

const { readFileSync } = require("node:fs");
const { join } = require("node:path");

const text = readFileSync(join(__dirname, "..", "redis", "users.acl"), "utf8");
const users = text.matchAll(/^user (\w+) on #\S+ (.+)$/gm);
module.exports = Object.fromEntries([...users].map(([, name, rules]) => [name, `on ${rules}`]));
