"""The AgileX Piper arm in MuJoCo: model, kinematics, tasks and their experts."""
