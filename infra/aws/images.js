// The repositories of the container images, with read access for the roles that start them.
"use strict";

const ECR = /^(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com\/([^:@]+)[:@].+$/;

module.exports = async ({ resolveVariable }) => {
  const repository = async (name) => {
    const image = await resolveVariable(`param:${name}`);
    const found = ECR.exec(image);
    if (!found) throw new Error(`${name} is to be an image in ECR, with its tag or digest; it is «${image}».`);
    return `arn:aws:ecr:${found[2]}:${found[1]}:repository/${found[3]}`;
  };
  return { function: await repository("function-image"), worker: await repository("worker-image") };
};
