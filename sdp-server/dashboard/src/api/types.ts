import type { components } from "./schema";

type Schemas = components["schemas"];
export type Agent = Schemas["Agent"];
export type ApiToken = Schemas["ApiToken"];
export type AuditAction = Schemas["AuditAction"];
export type AuditEntry = Schemas["AuditEntry"];
export type Branch = Schemas["Branch"];
export type Deployment = Schemas["Deployment"];
export type DeploymentState = Schemas["DeploymentState"];
export type Disk = Schemas["Disk"];
export type Environment = Schemas["Environment"];
export type Examination = Schemas["Examination"];
export type ListedSandbox = Schemas["ListedSandbox"];
export type Me = Schemas["Me"];
export type Problem = Schemas["Problem"];
export type Repo = Schemas["Repo"];
export type Role = Schemas["Role"];
export type Route = Schemas["Route"];
export type RouteTable = Schemas["RouteTable"];
export type RouteTarget = Schemas["RouteTarget"];
export type RunningStats = Schemas["RunningStats"];
export type Sandbox = Schemas["Sandbox"];
export type SandboxDetail = Schemas["SandboxDetail"];
export type Scope = Schemas["Scope"];
export type ServiceSpec = Schemas["ServiceSpec"];
export type ServiceStats = Schemas["ServiceStats"];
export type Stage = Schemas["Stage"];
export type StageRecord = Schemas["StageRecord"];
export type Template = Schemas["Template"];
export type User = Schemas["User"];
export type Verdict = Schemas["Verdict"];

export const STAGES: readonly Stage[] = ["source", "build", "start", "health", "routes"];

const ACTIVE: ReadonlySet<DeploymentState> = new Set(["queued", "source", "build", "start", "health", "routes"]);

/** Whether a deployment is still on its way. */
export const isActive = (state: DeploymentState): boolean => ACTIVE.has(state);

/** Whether a program of it is there whose output can be read. */
export const hasOutput = (state: DeploymentState): boolean => state === "running" || state === "stopped";
